"""What a Redis URL says.

======================================================== ======================================
``redis://user:password@host:6379/0``                    one server, database 0
``rediss://…``                                           the same with TLS
``unix://user:password@/path/of/the/socket?db=0``        the same by a Unix socket
``redis+sentinel://user:password@s-1,s-2:26379/name/0``  the primary that sentinels name
``rediss+sentinel://…``                                  the same with TLS, sentinels included
======================================================== ======================================

User, password and path are percent-encoded where needed. Options:

============ ====================================================================================
``db``       number of the database, where the path does not say it
``protocol`` 2 or 3 (default); 2 for proxies that know no other
``cafile``   file of certificates to trust; default those of the system
``certfile`` file of the client certificate, with ``keyfile`` where the key is apart
``keyfile``  file of the client certificate's key
``verify``   ``true`` (default); ``false`` accepts any certificate of the server
============ ====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cluster_kit.errors import ConfigurationError
from cluster_kit.urls import redact_url
from cluster_kit_aiocache.urls import boolean, host, query, split

if TYPE_CHECKING:
    from urllib.parse import SplitResult

KNOWN_OPTIONS = ("cafile", "certfile", "db", "keyfile", "protocol", "verify")
TLS_OPTIONS = ("cafile", "certfile", "keyfile", "verify")
_PORT, _SENTINEL_PORT = 6379, 26379
_FORM = "redis://host:port/db"
_PATH_PARTS_OF_SENTINEL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """A URL, taken apart and checked. `url` is redacted.

    Attributes:
        hosts: of the server, or of the sentinels; empty with a Unix socket.
        service: name the sentinels know the primary by; empty without sentinels.
        socket: path of a Unix socket; empty without one.
    """

    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    socket: str = ""
    user: str | None = field(default=None, repr=False)  # alone it may be the password
    password: str | None = field(default=None, repr=False)
    db: int = 0
    protocol: int = 3
    tls: bool = False
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True


def parse_url(url: str) -> RedisOptions:
    """Take a URL apart.

    Raises:
        UnknownOptionError: an option nothing reads.
        ConfigurationError: anything else that is wrong.

    >>> options = parse_url("redis://shop:p%40ss@cache/2")
    >>> options.hosts, options.user, options.password, options.db
    ((('cache', 6379),), 'shop', 'p@ss', 2)
    """
    shown = redact_url(url)
    parts = split(url, _FORM)
    tls = parts.scheme.startswith("rediss")
    options = query(parts, shown, KNOWN_OPTIONS)
    for name in TLS_OPTIONS:
        if name in options and not tls:
            raise ConfigurationError(f"option {name!r} in {shown} needs rediss://")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    service, socket, db = _path(parts, shown)
    if db and "db" in options:
        raise ConfigurationError(f"the database is named twice in {shown}")
    port = _SENTINEL_PORT if service else _PORT
    return RedisOptions(
        url=shown,
        hosts=() if socket else tuple(host(h, port, shown) for h in _hosts(hosts, service, shown)),
        service=service,
        socket=socket,
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        db=_number("db", db or options.get("db", "0"), shown),
        protocol=_protocol(options.get("protocol", "3"), shown),
        tls=tls,
        cafile=options.get("cafile"),
        certfile=options.get("certfile"),
        keyfile=options.get("keyfile"),
        verify=boolean("verify", options, shown, default=True),
    )


def _path(parts: SplitResult, shown: str) -> tuple[str, str, str]:
    """Return the service of sentinels, the path of a socket, and the database."""
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ConfigurationError(f"{shown}: the path of the socket is missing")
        return "", unquote(parts.path), ""
    named = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    if parts.scheme.endswith("+sentinel"):
        if not 1 <= len(named) <= _PATH_PARTS_OF_SENTINEL:
            text = f"{shown}: after the sentinels come the name of the service and the database"
            raise ConfigurationError(text)
        return named[0], "", named[1] if len(named) > 1 else ""
    if len(named) > 1:
        raise ConfigurationError(f"{shown}: after the host comes the number of the database")
    return "", "", named[0] if named else ""


def _hosts(hosts: str, service: str, shown: str) -> list[str]:
    names = (hosts or "localhost").split(",")
    if len(names) > 1 and not service:
        raise ConfigurationError(f"{shown}: several hosts need redis+sentinel://")
    return names


def _number(name: str, value: str, shown: str) -> int:
    if value.isascii() and value.isdigit():
        return int(value)
    raise ConfigurationError(f"{name!r} in {shown} must be a whole number, not {value!r}")


def _protocol(value: str, shown: str) -> int:
    if value in {"2", "3"}:
        return int(value)
    raise ConfigurationError(f"option 'protocol' in {shown} must be 2 or 3, not {value!r}")
