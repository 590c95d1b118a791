"""What is asked of, and done to, the rows of one application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from cluster_kit_sqlalchemy.outbox.entries import Entry
from cluster_kit_sqlalchemy.tables import LANES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cluster_kit_sqlalchemy.outbox.entries import Row

MAX_ERROR = 2_000
"""Longest error text that is kept, characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much there is.

    Attributes:
        pending: messages to be sent.
        failed: messages given up.
        oldest: when the oldest pending one was published, seconds since 1970; None without any.
    """

    pending: int
    failed: int
    oldest: float | None


class Store:
    """The rows of one application in one table.

    Args:
        table: as `outbox_table` makes it.
        app: name of the application.
    """

    def __init__(self, table: Table, app: str) -> None:
        self.table = table
        self.app = app
        self._rows = _raw(table)

    def insert(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Add messages, in their order."""
        connection.execute(insert(self.table), rows)

    # --- for relays ----------------------------------------------------------------------

    async def heads(
        self, connection: AsyncConnection, now: float, without: Collection[str] = ()
    ) -> list[int]:
        """Return the lanes that have something to be sent, that with the oldest first.

        Args:
            connection: to ask on.
            now: seconds since 1970.
            without: keys that are to be passed over.
        """
        # One look into the index for each: to search for distinct lanes would read all rows.
        looks = [self._head(lane, now, without).label(f"lane_{lane}") for lane in range(LANES)]
        [heads] = (await connection.execute(select(*looks))).all()
        found = [(head, lane) for lane, head in enumerate(heads) if head is not None]
        return [lane for _, lane in sorted(found)]

    def _head(self, lane: int, now: float, without: Collection[str]) -> ScalarSelect[Any]:
        position = self.table.c.position
        due = select(position).where(*self._due(lane, now, without)).order_by(position).limit(1)
        return due.scalar_subquery()

    async def batch(
        self,
        connection: AsyncConnection,
        lanes: Iterable[int],
        limit: int,
        now: float,
        without: Collection[str] = (),
    ) -> list[Entry]:
        """Return at most `limit` messages of each lane, in order, but for keys that wait."""
        found: list[Entry] = []
        for lane in lanes:
            due = self._rows.where(*self._due(lane, now, without))
            rows = await connection.execute(due.order_by(self.table.c.position).limit(limit))
            found += [Entry.of(dict(row)) for row in rows.mappings()]
        return found

    async def lock(self, connection: AsyncConnection, positions: Sequence[int]) -> set[int]:
        """Lock rows until the transaction ends; return those that nobody else has locked.

        Only where the database locks rows. It waits for nobody.
        """
        c = self.table.c
        free = select(c.position).where(c.position.in_(positions))
        return set(await connection.scalars(free.with_for_update(skip_locked=True)))

    async def existing(self, connection: AsyncConnection, positions: Sequence[int]) -> list[int]:
        """Return those of these positions that have a row."""
        c = self.table.c
        return list(await connection.scalars(select(c.position).where(c.position.in_(positions))))

    async def remove(self, connection: AsyncConnection, positions: Sequence[int]) -> int:
        """Forget what was sent; return how many rows there were."""
        if not positions:
            return 0
        gone = delete(self.table).where(self.table.c.position.in_(positions))
        return (await connection.execute(gone)).rowcount

    async def postpone(
        self, connection: AsyncConnection, entry: Entry, retry_at: float, error: str
    ) -> None:
        """Note what came of an attempt; the key of `entry` waits until `retry_at`."""
        await self._change(connection, entry, retry_at=retry_at, error=error[:MAX_ERROR])

    async def give_up(
        self, connection: AsyncConnection, entry: Entry, now: float, error: str
    ) -> None:
        """Note the last attempt: the key of `entry` waits no more, it stays as failed."""
        await self._change(
            connection,
            entry,
            retry_at=None,
            failed=True,
            failed_at=now,
            error=error[:MAX_ERROR],
        )

    async def depth(self, connection: AsyncConnection) -> Depth:
        """Count. Reads the index of all that is pending."""
        c = self.table.c
        pending = await self._count(connection, failed=False)
        failed = await self._count(connection, failed=True)
        # By position, not by time: positions are indexed.
        first = [self._due(lane, None) for lane in range(LANES)]
        looks = [
            select(c.created_at).where(*due).order_by(c.position).limit(1).scalar_subquery()
            for due in first
        ]
        [times] = (await connection.execute(select(*looks))).all() if pending else [()]
        oldest = min((time for time in times if time is not None), default=None)
        return Depth(pending=pending, failed=failed, oldest=oldest)

    # --- for people ----------------------------------------------------------------------

    def failed(self, limit: int) -> Select[Any]:
        """Select the oldest messages that were given up."""
        c = self.table.c
        return self._rows.where(*self._failed()).order_by(c.position).limit(limit)

    async def replay(self, connection: AsyncConnection, ids: Sequence[str] | None) -> int:
        """Have messages that were given up tried again; return how many."""
        statement = update(self.table).where(*self._failed(ids))
        fresh = statement.values(failed=False, failed_at=None, attempts=0, retry_at=None)
        return (await connection.execute(fresh)).rowcount

    async def discard(self, connection: AsyncConnection, ids: Sequence[str] | None) -> int:
        """Forget messages that were given up; return how many."""
        return (await connection.execute(delete(self.table).where(*self._failed(ids)))).rowcount

    # --- inside --------------------------------------------------------------------------

    def _due(
        self, lane: int, now: float | None, without: Collection[str] = ()
    ) -> list[ColumnElement[bool]]:
        """Return what makes a row of a lane due; without `now`, whatever its key waits for."""
        c = self.table.c
        own = [c.app == self.app, c.lane == lane, c.failed.is_(False)]
        if now is None:
            return own
        other = self.table.alias()
        waits = select(other.c.key).where(
            other.c.app == self.app, other.c.lane == lane, other.c.retry_at > now
        )
        passed_over = [c.key.not_in(sorted(without))] if without else []
        return [*own, c.key.not_in(waits), *passed_over]

    def _failed(self, ids: Sequence[str] | None = None) -> list[ColumnElement[bool]]:
        c = self.table.c
        own = [c.app == self.app, c.failed.is_(True)]
        return own if ids is None else [*own, c.id.in_(ids)]

    async def _count(self, connection: AsyncConnection, *, failed: bool) -> int:
        c = self.table.c
        counted = select(func.count()).where(c.app == self.app, c.failed.is_(failed))
        return (await connection.execute(counted)).scalar_one()

    async def _change(self, connection: AsyncConnection, entry: Entry, **values: object) -> None:
        tried = {"attempts": entry.attempts, "unconfirmed": entry.unconfirmed}
        row = self.table.c.position == entry.position
        await connection.execute(update(self.table).where(row).values(**tried, **values))


def _raw(table: Table) -> Select[Any]:
    """Select rows as they are: one that makes no sense must not keep others from being read."""
    columns: list[ColumnElement[Any]] = [
        (cast(c, Text) if isinstance(c.type, JSON) else type_coerce(c, NullType())).label(c.name)
        for c in table.c
    ]
    return select(*columns)
