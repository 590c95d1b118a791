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

from cluster_kit_sqlalchemy.outbox.entries import Entry, number
from cluster_kit_sqlalchemy.tables import LANES, is_failed, is_pending

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cluster_kit_sqlalchemy.outbox.entries import Row

MAX_ERROR = 2_000
"""Longest error text that is kept, characters."""

_BELOW, _ABOVE = -1, LANES  # stand for all lanes that there are not; see `Entry.check_lane`
_LANES = (*range(LANES), _BELOW, _ABOVE)


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
        longest_wait: seconds. What is to be tried again later than that was written by a clock
            that was wrong, or by somebody else, and is due.
    """

    def __init__(self, table: Table, app: str, longest_wait: float) -> None:
        self.table = table
        self.app = app
        self._longest_wait = longest_wait
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
        looks = [
            self._head(lane, now, without).label(f"lane_{place}")
            for place, lane in enumerate(_LANES)
        ]
        [heads] = (await connection.execute(select(*looks))).all()
        found = [(head, lane) for lane, head in zip(_LANES, heads, strict=True) if head is not None]
        return [lane for _, lane in sorted(found)]

    def _head(self, lane: int, now: float, without: Collection[str]) -> ScalarSelect[Any]:
        c = self.table.c
        due = select(c.position).where(*self._due(lane, now, without))
        # By the index, also where a look is for several lanes.
        return due.order_by(c.lane, c.position).limit(1).scalar_subquery()

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
            in_order = due.order_by(self.table.c.lane, self.table.c.position)
            rows = await connection.execute(in_order.limit(limit))
            found += [Entry.of(dict(row)) for row in rows.mappings()]
        return found

    async def lock(self, connection: AsyncConnection, positions: Sequence[int]) -> set[int]:
        """Lock rows until the transaction ends; return those that nobody else has locked.

        Only where the database locks rows. It waits for nobody.
        """
        c = self.table.c
        free = select(c.position).where(c.position.in_(positions))
        return set(await connection.scalars(free.with_for_update(skip_locked=True)))

    async def pending(self, connection: AsyncConnection, positions: Sequence[int]) -> list[int]:
        """Return those of these positions that have a row which is neither sent nor given up."""
        c = self.table.c
        there = select(c.position).where(c.position.in_(positions), is_pending(self.table))
        return list(await connection.scalars(there))

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
        pending = await self._count(connection, is_pending(self.table))
        failed = await self._count(connection, is_failed(self.table))
        oldest = await self.oldest(connection, None) if pending else None
        return Depth(pending=pending, failed=failed, oldest=oldest)

    async def oldest(self, connection: AsyncConnection, now: float | None) -> float | None:
        """Return when the oldest that is due was published; without `now`, that is pending."""
        # By position, not by time: positions are indexed.
        c = self.table.c
        created = select(type_coerce(c.created_at, NullType()))
        looks = [
            created.where(*self._due(lane, now))
            .order_by(c.lane, c.position)
            .limit(1)
            .scalar_subquery()
            for lane in _LANES
        ]
        [times] = (await connection.execute(select(*looks))).all()
        return min((time for time in map(number, times) if time), default=None)

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
        passed_over = [c.key.not_in(sorted(without))] if without else []
        if lane in (_BELOW, _ABOVE):  # nothing there is sent, so nothing waits
            strays = c.lane < 0 if lane == _BELOW else c.lane >= LANES
            return [c.app == self.app, strays, is_pending(self.table), *passed_over]
        own = [c.app == self.app, c.lane == lane, is_pending(self.table)]
        if now is None:
            return own
        other = self.table.alias()
        waits = select(other.c.key).where(
            other.c.app == self.app,
            other.c.lane == lane,
            other.c.retry_at > now,
            other.c.retry_at <= now + self._longest_wait,
        )
        return [*own, c.key.not_in(waits), *passed_over]

    def _failed(self, ids: Sequence[str] | None = None) -> list[ColumnElement[bool]]:
        c = self.table.c
        own = [c.app == self.app, is_failed(self.table)]
        return own if ids is None else [*own, c.id.in_(ids)]

    async def _count(self, connection: AsyncConnection, which: ColumnElement[bool]) -> int:
        counted = select(func.count()).where(self.table.c.app == self.app, which)
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
