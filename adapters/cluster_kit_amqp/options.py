"""What a URL of this adapter says.

``amqp://user:password@host-1:5672,host-2:5673/vhost?option=value``, or ``amqps://`` for TLS. User,
password and virtual host are percent-encoded where needed; without them they are ``guest``,
``guest`` and ``/``. Ports default to 5672 and 5671. Options:

=================== =============================================================================
``declare``         ``auto`` (default): make what is missing and compare what is there;
                    ``passive``: only check that it is there; ``none``: trust that it is
``heartbeat``       seconds, 1 to 3600, default 10: a dead peer is noticed within twice that
``connect_timeout`` seconds for one attempt to reconnect, default that of the first connect
``shuffle``         ``true`` (default) tries several hosts in random order, ``false`` in that given
``name``            what the broker shows of the connections, at most 200 bytes; default app and
                    instance
``frame_max``       bytes of a frame at most, 8192 to 134217728, default 131072; all headers of a
                    task must fit into one
``channel_max``     channels of a connection, 1 to 65535, default 2047; each consumer needs one
``auth``            ``plain`` (default): user and password; ``external``: the client certificate
``cafile``          file of certificates to trust; default those of the system
``certfile``        file of the client certificate, with ``keyfile`` where the key is apart
``keyfile``         file of the client certificate's key
``verify``          ``true`` (default); ``false`` accepts any certificate of the server
=================== =============================================================================
"""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cluster_kit.errors import ConfigurationError, UnknownOptionError
from cluster_kit.urls import redact_url
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

DeclareMode = Literal["auto", "passive", "none"]
AuthMode = Literal["plain", "external"]
T = TypeVar("T")

KNOWN_OPTIONS = (
    "auth",
    "cafile",
    "certfile",
    "channel_max",
    "connect_timeout",
    "declare",
    "frame_max",
    "heartbeat",
    "keyfile",
    "name",
    "shuffle",
    "verify",
)
MAX_HEARTBEAT = 3600
MIN_FRAME_MAX, MAX_FRAME_MAX = 8192, 1 << 27
MAX_CHANNEL_MAX = 65535
MAX_NAME_BYTES = 200
MAX_VHOST_BYTES = 255
MAX_CONNECT_TIMEOUT = 3600.0
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Host(NamedTuple):
    """One server of the list."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A URL, taken apart and checked. `url` is redacted; durations are seconds."""

    url: str
    hosts: tuple[Host, ...]
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: bool = False
    declare: DeclareMode = "auto"
    heartbeat: int = 10
    connect_timeout: float | None = None
    shuffle: bool = True
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    name: str = ""
    frame_max: int = 131072
    channel_max: int = 2047
    auth: AuthMode = "plain"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS settings, or None for a plain connection. Reads the named files.

        Raises:
            ConfigurationError: a certificate file is missing or unusable.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.cafile)
            if self.certfile is not None:
                context.load_cert_chain(self.certfile, self.keyfile, password=_refuse_to_ask)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(f"certificates of {self.url}: {exc}") from exc
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _refuse_to_ask() -> str:
    """Stand in for OpenSSL, which would ask for a passphrase on the terminal."""
    raise ConfigurationError("the key file is encrypted; give one that is not")


def parse_url(url: str) -> Options:
    """Take a URL apart.

    Raises:
        UnknownOptionError: an option nothing reads.
        ConfigurationError: anything else that is wrong, with the name of the option at fault.

    >>> options = parse_url("amqp://shop:p%40ss@mq-1,mq-2:5673/prod?declare=passive")
    >>> [str(host) for host in options.hosts], options.vhost, options.declare
    (['mq-1:5672', 'mq-2:5673'], 'prod', 'passive')
    """
    shown = redact_url(url)
    parts = _split(url, shown)
    tls = parts.scheme == "amqps"
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    query = _query(parts.query, shown)
    if not tls:
        _refuse_tls_options(query, shown)
    if "keyfile" in query and "certfile" not in query:
        raise ConfigurationError(f"option 'keyfile' in {shown} needs 'certfile'")
    auth = _one_of("auth", get_args(AuthMode), query, shown)
    if auth == "external" and "certfile" not in query:
        raise ConfigurationError(f"option 'auth' in {shown} is external, which needs 'certfile'")
    return Options(
        url=shown,
        hosts=tuple(_host(text, tls=tls, shown=shown) for text in hosts.split(",")),
        user=unquote(user) if userinfo else "guest",
        password=unquote(password) if colon else ("" if userinfo else "guest"),
        vhost=_vhost(parts.path, shown),
        tls=tls,
        declare=_one_of("declare", get_args(DeclareMode), query, shown),
        heartbeat=_whole("heartbeat", 10, (1, MAX_HEARTBEAT), query, shown),
        connect_timeout=_connect_timeout(query, shown),
        shuffle=_boolean("shuffle", query, shown),
        cafile=query.get("cafile"),
        certfile=query.get("certfile"),
        keyfile=query.get("keyfile"),
        verify=_boolean("verify", query, shown),
        name=_name(query, shown),
        frame_max=_whole("frame_max", 1 << 17, (MIN_FRAME_MAX, MAX_FRAME_MAX), query, shown),
        channel_max=_whole("channel_max", 2047, (1, MAX_CHANNEL_MAX), query, shown),
        auth=auth,
    )


def _split(url: str, shown: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may have a piece of the password
        raise ConfigurationError(f"{shown!r} is no URL of the form amqp://host/vhost") from None
    if "@" in parts.path + parts.query + parts.fragment:
        text = f"{shown!r}: user and password must be percent-encoded, as any other '@'"
        raise ConfigurationError(text)
    if parts.scheme not in {"amqp", "amqps"} or not parts.netloc:
        raise ConfigurationError(f"{shown!r} is no URL of the form amqp://host/vhost")
    if parts.fragment:
        raise ConfigurationError(f"{shown!r} has a '#'; in a password it is written %23")
    return parts


def _host(text: str, *, tls: bool, shown: str) -> Host:
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"bad host or port in {shown}") from None
    if not name or parts.path:
        raise ConfigurationError(f"a host is missing in {shown}")
    return Host(name, port or (5671 if tls else 5672))


def _query(query: str, shown: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in KNOWN_OPTIONS:
            raise UnknownOptionError(shown, name, KNOWN_OPTIONS)
        if name in found:
            raise ConfigurationError(f"option {name!r} appears twice in {shown}")
        found[name] = value
    return found


def _refuse_tls_options(query: Mapping[str, str], shown: str) -> None:
    for name in ("cafile", "certfile", "keyfile", "verify"):
        if name in query:
            raise ConfigurationError(f"option {name!r} in {shown} needs amqps://")


def _vhost(path: str, shown: str) -> str:
    vhost = unquote(path[1:]) or "/"
    if len(vhost.encode("utf-8", "replace")) > MAX_VHOST_BYTES:
        raise ConfigurationError(f"the virtual host in {shown} has over {MAX_VHOST_BYTES} bytes")
    return vhost


def _name(query: Mapping[str, str], shown: str) -> str:
    value = query.get("name", "")
    if len(value.encode("utf-8", "replace")) > MAX_NAME_BYTES or ("name" in query and not value):
        raise _bad("name", value, shown, f"1 to {MAX_NAME_BYTES} bytes")
    return value


def _one_of(name: str, known: tuple[T, ...], query: Mapping[str, str], shown: str) -> T:
    """Return the value of an option that has a few; the first is the default."""
    value = query.get(name)
    if value is None:
        return known[0]
    for candidate in known:
        if value == candidate:
            return candidate
    hint = suggestion(value, [str(candidate) for candidate in known])
    raise _bad(name, value, shown, f"one of {', '.join(map(str, known))}", hint)


def _whole(
    name: str, default: int, bounds: tuple[int, int], query: Mapping[str, str], shown: str
) -> int:
    value = query.get(name)
    if value is None:
        return default
    least, most = bounds
    # Longer ones are no number anybody means, and slow to read.
    if value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most:  # noqa: PLR2004
        return int(value)
    raise _bad(name, value, shown, f"a whole number from {least} to {most}")


def _connect_timeout(query: Mapping[str, str], shown: str) -> float | None:
    if (value := query.get("connect_timeout")) is None:
        return None
    try:
        timeout = float(value)
    except ValueError:
        timeout = math.nan
    if 0 < timeout <= MAX_CONNECT_TIMEOUT:
        return timeout
    raise _bad("connect_timeout", value, shown, f"seconds above 0, at most {MAX_CONNECT_TIMEOUT:g}")


def _boolean(name: str, query: Mapping[str, str], shown: str) -> bool:
    value = query.get(name, "true")
    if value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise _bad(name, value, shown, "true or false")


def _bad(name: str, value: str, shown: str, expected: str, hint: str = "") -> ConfigurationError:
    text = f"option {name!r} in {shown} must be {expected}, not {value!r}{hint}"
    return ConfigurationError(text)
