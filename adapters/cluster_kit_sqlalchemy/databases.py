"""Which database is it, as far as URLs tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from sqlalchemy import URL

_ELSEWHERE = frozenset({"host", "port", "database", "dbname", "service", "dsn"})
"""Options of URLs by which drivers are told another database than the one the URL names."""


def file_of(url: URL) -> str:
    """Return the path of a SQLite file; empty for what is in memory."""
    name = url.database or ":memory:"
    path, _, query = name.partition("?")
    path = unquote(path.removeprefix("file:")) if name.startswith("file:") else name
    named = "mode=memory" in query or url.query.get("mode") == "memory"
    return "" if named or path == ":memory:" else path


def shown(url: URL) -> str:
    """Return a URL for people: without its options, which may have passwords, too."""
    return url.set(query={}).render_as_string(hide_password=True)


def in_memory(url: URL) -> bool:
    """Whether it is a SQLite database that ends with its connections, and nobody else sees."""
    return url.get_backend_name() == "sqlite" and not file_of(url)


def surely_differ(one: URL, other: URL) -> bool:
    """Whether two URLs are of different databases, whatever proxies and aliases there are."""
    backends = one.get_backend_name(), other.get_backend_name()
    if backends[0] != backends[1]:
        return True
    if backends[0] == "sqlite":
        files = file_of(one), file_of(other)
        if not all(files):
            return any(files)  # one is in memory
        return os.path.realpath(files[0]) != os.path.realpath(files[1])
    if not one.database or not other.database or _ELSEWHERE & {*one.query, *other.query}:
        return False
    return _server(one) == _server(other) and one.database != other.database


def _server(url: URL) -> tuple[str | None, int | None]:
    return url.host, url.port or (5432 if url.get_backend_name() == "postgresql" else None)
