"""Who has handled what: the rows of an inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, extract, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Dialect, Table
    from sqlalchemy.ext.asyncio import AsyncEngine

PRUNE_BATCH = 1_000
"""Rows that are deleted in one transaction."""

_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

_EPOCH = 2_440_587.5  # as a Julian day
_DAY = 86_400.0

_NOW: dict[str, ColumnElement[Any]] = {
    "postgresql": extract("epoch", func.statement_timestamp()),
    "sqlite": (func.julianday("now") - _EPOCH) * _DAY,
}
"""Seconds since 1970 by the clock of the database: one for all instances, whatever theirs say."""


class Records:
    """The rows of one application in one table.

    Args:
        table: as `inbox_table` makes it.
        app: name of the application.
    """

    def __init__(self, table: Table, app: str) -> None:
        self.table = table
        self._app = app

    def check(self, dialect: Dialect) -> None:
        """Refuse a database this cannot work on."""
        if dialect.name not in _INSERTS:
            raise ConfigurationError(
                f"an inbox works on PostgreSQL and SQLite, not on {dialect.name}"
            )

    def note(self, connection: Connection, consumer: str, message_id: str) -> bool:
        """Note that `consumer` handles a message; return whether it is the first to.

        Waits for another transaction that is about to note the same.
        """
        self.check(connection.dialect)
        key = {"app": self._app, "consumer": consumer, "message_id": message_id}
        name = connection.dialect.name
        insert = _INSERTS[name](self.table).values(**key, handled_at=_NOW[name])
        # With the key named, a database whose table has another one says so.
        first = insert.on_conflict_do_nothing(index_elements=list(key))
        # Not by the number of rows: not every driver tells it of such a statement.
        noted = first.returning(self.table.c.message_id)
        return connection.execute(noted).first() is not None

    async def prune(self, engine: AsyncEngine, age: float) -> int:
        """Delete a batch of what was handled more than `age` seconds ago; return how many."""
        c, before = self.table.c, _NOW[engine.dialect.name] - age
        old = select(c.consumer, c.message_id).where(c.app == self._app, c.handled_at < before)
        batch = old.order_by(c.handled_at).limit(PRUNE_BATCH)
        if engine.dialect.name == "postgresql":  # several instances do this
            batch = batch.with_for_update(skip_locked=True)
        chosen = tuple_(c.consumer, c.message_id).in_(batch)
        gone = delete(self.table).where(c.app == self._app, chosen)
        async with engine.begin() as connection:
            return (await connection.execute(gone)).rowcount
