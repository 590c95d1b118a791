"""Whether tables are what this package made, in the program and in the database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError

from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator

_LACKING = ("42P01", "42703", "42P10")
"""What PostgreSQL says of a table, a column, and a key that is not there."""

_LACKING_TEXTS = (
    *("no such table", "no such column", "has no column named"),
    "does not match any PRIMARY KEY",
)
"""What SQLite says, which has no codes for it."""


def check_table(name: str, table: object, like: Table | None = None) -> Table:
    """Return `table` if it is one, and has the columns of `like`.

    Raises:
        ConfigurationError: it is none, or lacks some; the text names the argument.
    """
    if not isinstance(table, Table):
        raise ConfigurationError(f"{name} must be a Table, not {type(table).__name__}")
    found = cast("Table", table)
    wanted = [] if like is None else [column.name for column in like.columns]
    if lacking := [column for column in wanted if column not in found.columns]:
        raise ConfigurationError(f"{name} {found.name!r} lacks columns: {', '.join(lacking)}")
    return found


@contextmanager
def lacking_told(table: Table) -> Generator[None]:
    """Say of a failure that the database lacks `table`, or a part of it, where that is why.

    Raises:
        ConfigurationError: instead of the database's error.
    """
    try:
        yield
    except DBAPIError as exc:
        if not _lacks(exc):
            raise
        said = str(exc.orig).splitlines()[0] if str(exc.orig) else type(exc.orig).__name__
        raise ConfigurationError(
            f"the table {table.fullname} is missing in the database, or not up to date ({said}): "
            "create or change it by a migration of its metadata; one that is missing can also be "
            "created with create_tables(engine, table)"
        ) from exc


def _lacks(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) in _LACKING:
        return True
    return any(text in str(error.orig) for text in _LACKING_TEXTS)
