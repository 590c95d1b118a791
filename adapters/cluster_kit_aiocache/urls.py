"""What the URLs of this package have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from cluster_kit.errors import ConfigurationError, UnknownOptionError
from cluster_kit.urls import redact_url

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def split(url: str, form: str) -> SplitResult:
    """Take a URL into its parts.

    Raises:
        ConfigurationError: it has not the form ``form``.
    """
    shown = redact_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may have a piece of the password
        raise ConfigurationError(f"{shown!r} is no URL of the form {form}") from None
    if "@" in parts.path + parts.query + parts.fragment:
        text = f"{shown!r}: user and password must be percent-encoded, as any other '@'"
        raise ConfigurationError(text)
    if parts.fragment:
        raise ConfigurationError(f"{shown!r} has a '#'; in a password it is written %23")
    return parts


def query(parts: SplitResult, shown: str, known: Collection[str]) -> dict[str, str]:
    """Return the options of a URL.

    Raises:
        UnknownOptionError: one that nothing reads.
        ConfigurationError: one is given twice.
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise UnknownOptionError(shown, name, known)
        if name in found:
            raise ConfigurationError(f"option {name!r} appears twice in {shown}")
        found[name] = value
    return found


def host(text: str, default_port: int, shown: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        ConfigurationError: one is missing or malformed.
    """
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"bad host or port in {shown}") from None
    if not name or parts.path:
        raise ConfigurationError(f"a host is missing in {shown}")
    return name, port or default_port


def boolean(name: str, options: Mapping[str, str], shown: str, *, default: bool) -> bool:
    """Return an option that is true or false.

    Raises:
        ConfigurationError: it is neither.
    """
    if name not in options:
        return default
    value = _BOOLEANS.get(options[name].lower())
    if value is None:
        text = f"option {name!r} in {shown} must be true or false, not {options[name]!r}"
        raise ConfigurationError(text)
    return value
