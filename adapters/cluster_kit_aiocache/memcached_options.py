"""What a memcached URL says: ``memcached://host:11211``, one server, without user and password."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_kit.errors import ConfigurationError
from cluster_kit.urls import redact_url
from cluster_kit_aiocache.urls import host, query, split

_PORT = 11211


@dataclass(frozen=True, slots=True, kw_only=True)
class MemcachedOptions:
    """A URL, taken apart and checked. `url` is redacted."""

    url: str
    host: str
    port: int


def parse_url(url: str) -> MemcachedOptions:
    """Take a URL apart.

    Raises:
        UnknownOptionError: it has options; there are none.
        ConfigurationError: anything else that is wrong.

    >>> parse_url("memcached://cache").port
    11211
    """
    shown = redact_url(url)
    parts = split(url, "memcached://host:port")
    if "@" in parts.netloc:
        raise ConfigurationError(f"{shown}: memcached has no user and no password")
    if parts.path not in {"", "/"}:
        raise ConfigurationError(f"{shown}: memcached has no databases")
    query(parts, shown, ())
    if "," in parts.netloc:
        raise ConfigurationError(f"{shown}: one server; a lock lives on one of them alone")
    name, port = host(parts.netloc or "localhost", _PORT, shown)
    return MemcachedOptions(url=shown, host=name, port=port)
