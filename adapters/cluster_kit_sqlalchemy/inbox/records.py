"""Who has handled what: the rows of an inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect, Table
    from sqlalchemy.ext.asyncio import AsyncEngine

PRUNE_BATCH = 1_000
"""Rows that are deleted in one transaction."""

_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


class Records:
    """The rows of one table, as `inbox_table` makes it."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def check(self, dialect: Dialect) -> None:
        """Refuse a database this cannot work on."""
        if dialect.name not in _INSERTS:
            raise ConfigurationError(
                f"an inbox works on PostgreSQL and SQLite, not on {dialect.name}"
            )

    def note(self, connection: Connection, consumer: str, message_id: str, now: float) -> bool:
        """Note that `consumer` handles a message; return whether it is the first to.

        Waits for another transaction that is about to note the same.
        """
        self.check(connection.dialect)
        row = {"consumer": consumer, "message_id": message_id, "handled_at": now}
        insert = _INSERTS[connection.dialect.name](self.table).values(row)
        # Not by the number of rows: not every driver tells it of such a statement.
        noted = insert.on_conflict_do_nothing().returning(self.table.c.message_id)
        return connection.execute(noted).first() is not None

    async def prune(self, engine: AsyncEngine, before: float) -> int:
        """Delete a batch of what was handled before a time; return how many."""
        c = self.table.c
        old = select(c.consumer, c.message_id).where(c.handled_at < before)
        batch = old.order_by(c.handled_at).limit(PRUNE_BATCH)
        if engine.dialect.name == "postgresql":  # several instances do this
            batch = batch.with_for_update(skip_locked=True)
        gone = delete(self.table).where(tuple_(c.consumer, c.message_id).in_(batch))
        async with engine.begin() as connection:
            return (await connection.execute(gone)).rowcount
