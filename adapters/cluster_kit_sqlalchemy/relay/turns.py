"""Whose turn it is to send: a lane is in the hands of one relay at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import zlib
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from cluster_kit.errors import ConfigurationError
from cluster_kit_sqlalchemy.relay.delivery import Results

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from cluster_kit.ports import AdapterContext
    from cluster_kit_sqlalchemy.outbox.entries import Entry
    from cluster_kit_sqlalchemy.outbox.store import Store
    from cluster_kit_sqlalchemy.relay.settling import Settler

LANES_AT_ONCE = 4
"""Lanes a relay takes in one turn; those it leaves are for others."""

DATABASE_SECONDS = 30.0
"""Longest a step in the database may take; beyond it counts as lost."""

_WRITES = 5
"""How often a write is tried where other writers have locked the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a turn consists of.

    Attributes:
        engine: of the database.
        store: has the messages.
        batch_size: most messages of a turn.
        context: of the instance.
        settler: writes down what became of them.
        deliver: sends them.
    """

    engine: AsyncEngine
    store: Store
    batch_size: int
    context: AdapterContext
    settler: Settler
    deliver: Callable[[Sequence[Entry]], Awaitable[Results]]

    async def batch(self, connection: AsyncConnection, lanes: Sequence[int]) -> list[Entry]:
        """Return what is to be sent of these lanes."""
        if not lanes:
            return []
        taken = lanes[: self.batch_size]  # each gives one message at least
        limit = self.batch_size // len(taken)
        now = self.context.clock.wall()
        return await self.store.batch(connection, taken, limit, now)

    async def heads(self, connection: AsyncConnection) -> list[int]:
        """Return the lanes that have something to be sent."""
        return await self.store.heads(connection, self.context.clock.wall())


class Turns(Protocol):
    """Takes turns with the relays of other instances."""

    async def take(self, work: Work) -> Results:
        """Send a batch, write down what became of it, and return that.

        Raises:
            Exception: of the database; what was sent may be sent again.
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
        f"an outbox relay works on PostgreSQL and SQLite, not on {engine.dialect.name}"
    )


class PostgresTurns:
    """Each lane has a lock of the database that ends with the transaction, or its connection.

    The transaction is open while messages are sent. It reads and locks no row meanwhile.
    """

    def __init__(self, store: Store) -> None:
        space = f"{store.table.fullname} {store.app}".encode()
        self._space = zlib.crc32(space) - 2**31  # a signed integer of 32 bits

    async def take(self, work: Work) -> Results:
        """See `Turns.take`."""
        async with self._connection(work.engine) as connection:
            async with asyncio.timeout(DATABASE_SECONDS):
                wanted = await work.heads(connection)
                most = min(LANES_AT_ONCE, work.batch_size)
                lanes = await self._lock(connection, wanted, most)
                entries = await work.batch(connection, lanes)
            results = await work.deliver(entries)
            verdicts = work.settler.judge(results)
            async with asyncio.timeout(DATABASE_SECONDS):
                await work.settler.write(connection, results, verdicts)
                await connection.commit()
            work.settler.report(results, verdicts)
        return results

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        async with AsyncExitStack() as held:
            async with asyncio.timeout(DATABASE_SECONDS):
                plain = await held.enter_async_context(engine.connect())
                # Rows that another relay has removed before we got its lock must not be seen.
                connection = await plain.execution_options(isolation_level="READ COMMITTED")
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

    The database itself is not locked while messages are sent.
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
            results = await work.deliver(entries)
            if results.sent or results.refused:
                await self._settle(work, results)
        return results

    @staticmethod
    async def _settle(work: Work, results: Results) -> None:
        verdicts = work.settler.judge(results)
        for attempt in range(1, _WRITES + 1):
            try:
                async with asyncio.timeout(DATABASE_SECONDS), work.engine.begin() as connection:
                    await work.settler.write(connection, results, verdicts)
                break
            except OperationalError:
                if attempt == _WRITES:
                    raise
        work.settler.report(results, verdicts)

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
    name = engine.url.database or ":memory:"
    path, _, query = name.partition("?")
    path = unquote(path.removeprefix("file:")) if name.startswith("file:") else name
    if path in ("", ":memory:") or "mode=memory" in query:
        raise ConfigurationError(
            "an outbox relay needs a SQLite file: in memory there is one connection, so that its "
            "transactions and yours would be the same"
        )
    return path
