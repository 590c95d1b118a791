"""Whose turn it is to send: a lane is in the hands of one relay at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import zlib
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import func, select, text

from cluster_kit.errors import ConfigurationError
from cluster_kit_sqlalchemy.databases import file_of
from cluster_kit_sqlalchemy.relay.delivery import Results

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Collection,
        Generator,
        Sequence,
    )

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from cluster_kit.ports import AdapterContext
    from cluster_kit_sqlalchemy.outbox.entries import Entry
    from cluster_kit_sqlalchemy.outbox.store import Store
    from cluster_kit_sqlalchemy.relay.settling import Settler, Verdict
    from cluster_kit_sqlalchemy.relay.unsettled import Unsettled

LANES_AT_ONCE = 4
"""Lanes a relay takes in one turn; those it leaves are for others."""

DATABASE_SECONDS = 30.0
"""Longest a step in the database may take; beyond it counts as lost."""

IDLE_SECONDS = 90.0
"""Longest a turn may wait for the broker, or be frozen; then PostgreSQL ends its transaction.

More than `TURN_SECONDS` and what a send may take by default.
"""

_LOCKED_SECONDS = 1.0
"""How long a key is passed over whose next message somebody else has locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a turn consists of.

    Attributes:
        engine: of the database.
        store: has the messages.
        batch_size: most messages of a turn.
        context: of the instance.
        settler: writes down what became of them.
        unsettled: remembers it until then.
        deliver: sends them.
    """

    engine: AsyncEngine
    store: Store
    batch_size: int
    context: AdapterContext
    settler: Settler
    unsettled: Unsettled
    deliver: Callable[[Sequence[Entry]], Awaitable[Results]]

    async def batch(
        self, connection: AsyncConnection, lanes: Sequence[int], without: Collection[str] = ()
    ) -> list[Entry]:
        """Return what is to be sent of these lanes, passing over keys."""
        if not lanes:
            return []
        taken = lanes[: self.batch_size]  # each gives one message at least
        limit = self.batch_size // len(taken)
        now = self.context.clock.wall()
        return await self.store.batch(connection, taken, limit, now, without)

    async def heads(self, connection: AsyncConnection, without: Collection[str] = ()) -> list[int]:
        """Return the lanes that have something to be sent, passing over keys."""
        return await self.store.heads(connection, self.context.clock.wall(), without)

    async def rehearse(self, connection: AsyncConnection, entries: Sequence[Entry]) -> None:
        """Delete messages; the caller takes that back. What cannot be deleted must not be sent.

        Raises:
            SQLAlchemyError: this cannot be done here.
            ConfigurationError: the database only says that it did.
        """
        gone = await self.store.remove(connection, [entry.position for entry in entries])
        if gone < len(entries):
            name = self.store.table.fullname
            why = f"rows of {name} cannot be deleted, by a policy or a trigger of the database"
            raise ConfigurationError(f"{why}; nothing is sent, as it would be again and again")

    async def settle(
        self, connection: AsyncConnection, results: Results, verdicts: list[Verdict]
    ) -> None:
        """Write down what became of messages, and commit."""
        async with asyncio.timeout(DATABASE_SECONDS):
            await self.settler.write(connection, results, verdicts)
            await connection.commit()
        self.unsettled.forget(results.sent)
        self.unsettled.forget(entry for entry, _ in results.refused)
        results.delays = [each.delay for each in verdicts if each.delay is not None]
        self.settler.report(results, verdicts)


class Turns(Protocol):
    """Takes turns with the relays of other instances."""

    async def take(self, work: Work) -> Results:
        """Send a batch, write down what became of it, and return that.

        Raises:
            Exception: of the database. What was sent is remembered, and written down in a later
                turn.
        """
        ...


def turns_for(engine: AsyncEngine, store: Store) -> Turns:
    """Return what suits the database.

    Raises:
        ConfigurationError: nothing does.
    """
    if engine.dialect.name == "postgresql":
        return PostgresTurns(store)
    if engine.dialect.name == "sqlite":
        return SqliteTurns(engine, store)
    raise ConfigurationError(
        f"an outbox works on PostgreSQL and SQLite, not on {engine.dialect.name}"
    )


class PostgresTurns:
    """Each lane has a lock of the database that ends with the transaction, or its connection.

    The transaction is open while messages are sent. It has locked their rows, so that nobody can
    keep it from deleting them; it waits for no row that others have locked.
    """

    def __init__(self, store: Store) -> None:
        space = f"{store.table.fullname} {store.app}".encode()
        self._space = zlib.crc32(space) - 2**31  # a signed integer of 32 bits
        self._locked: dict[str, float] = {}

    async def take(self, work: Work) -> Results:
        """See `Turns.take`."""
        async with self._connection(work.engine) as connection:
            async with asyncio.timeout(DATABASE_SECONDS):
                entries = await self._claim(work, connection)
            results = await work.deliver(entries)
            results.locked = frozenset(self._locked)
            await work.settle(connection, results, work.settler.judge(results))
        return results

    async def _claim(self, work: Work, connection: AsyncConnection) -> list[Entry]:
        """Return messages that are ours to send, and that can be deleted afterwards."""
        now = work.context.clock.monotonic()
        self._locked = {key: until for key, until in self._locked.items() if now < until}
        wanted = await work.heads(connection, self._locked)
        lanes = await self._lock(connection, wanted, min(LANES_AT_ONCE, work.batch_size))
        found = await work.batch(connection, lanes, self._locked)
        if not found:
            return []
        free = await work.store.lock(connection, [entry.position for entry in found])
        entries: list[Entry] = []
        for entry in found:
            if entry.position not in free:
                self._locked[entry.key] = now + _LOCKED_SECONDS
            if entry.key not in self._locked:  # what is behind a locked one must not overtake it
                entries.append(entry)
        rehearsal = await connection.begin_nested()
        await work.rehearse(connection, entries)
        await rehearsal.rollback()
        return entries

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        async with AsyncExitStack() as held:
            async with asyncio.timeout(DATABASE_SECONDS):
                plain = await held.enter_async_context(engine.connect())
                # Rows that another relay has removed before we got its lock must not be seen.
                connection = await plain.execution_options(isolation_level="READ COMMITTED")
                # The lanes of a process that is frozen are for others after a while.
                limit = f"idle_in_transaction_session_timeout = {round(IDLE_SECONDS * 1000)}"
                await connection.execute(text(f"SET LOCAL {limit}"))
            yield connection

    async def _lock(
        self, connection: AsyncConnection, wanted: Sequence[int], most: int
    ) -> list[int]:
        held: list[int] = []
        for lane in wanted:
            if len(held) == most:
                break
            attempt = select(func.pg_try_advisory_xact_lock(self._space, lane))
            if (await connection.execute(attempt)).scalar_one():
                held.append(lane)
        return held


class SqliteTurns:
    """One relay at a time, by a lock on a file beside the database; its end frees the lock.

    The database itself is not locked while messages are sent. Where others lock it afterwards for
    long, what was sent is written down in a later turn.
    """

    def __init__(self, engine: AsyncEngine, store: Store) -> None:
        self._path = f"{_file(engine)}.{store.table.name}-{store.app}.lock"

    async def take(self, work: Work) -> Results:
        """See `Turns.take`."""
        with self._lock() as ours:
            if not ours:
                return Results()
            async with asyncio.timeout(DATABASE_SECONDS), work.engine.connect() as connection:
                entries = await work.batch(connection, await work.heads(connection))
                await connection.rollback()  # what only reads may not go on to write
                if entries:
                    await work.rehearse(connection, entries)
            results = await work.deliver(entries)
            if results.sent or results.refused:
                async with work.engine.connect() as connection:
                    await work.settle(connection, results, work.settler.judge(results))
        return results

    @contextmanager
    def _lock(self) -> Generator[bool]:
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _file(engine: AsyncEngine) -> str:
    path = file_of(engine.url)
    if not path:
        raise ConfigurationError(
            "an outbox needs a SQLite file: in memory there is one connection, so that its "
            "transactions and yours would be the same"
        )
    return path
