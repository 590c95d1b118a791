"""What scenarios work with: a database, instances with an outbox, transactions of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)
from sqlalchemy.orm import Session

from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit_sqlalchemy import Inbox, Outbox, create_tables, inbox_table, outbox_table

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.message import Envelope
    from cluster_kit.ports import BatchOptions, Extension, Outlets, TaskOptions, TaskOutlet
    from cluster_kit.testing.contracts.outbox.environment import Environment

Kind = Literal["async_session", "async_connection", "session", "connection"]
KINDS: tuple[Kind, ...] = ("async_session", "async_connection", "session", "connection")
"""Where a caller may have a transaction."""

T = TypeVar("T")
Transaction = AsyncSession | AsyncConnection | Session | Connection
Blocking = TypeVar("Blocking", Session, Connection)


@dataclass(slots=True)
class Faults:
    """What goes wrong at sending tasks.

    Attributes:
        of: errors by channel.
        tried: ids of tasks that were to be sent, in order, successful or not.
        slowness: seconds each takes before anything is sent.
        gate: is waited for before anything is sent.
    """

    of: dict[str, Exception] = field(default_factory=dict[str, Exception])
    tried: list[str] = field(default_factory=list[str])
    slowness: float = 0.0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()


class _FaultyOutlet:
    """Fails as it is told before anything is sent."""

    def __init__(self, outlet: TaskOutlet, faults: Faults) -> None:
        self._outlet = outlet
        self._faults = faults

    def prepare(
        self, channel: str, payload: object, **options: Unpack[TaskOptions]
    ) -> tuple[Envelope, float]:
        return self._outlet.prepare(channel, payload, **options)

    def prepare_many(
        self, channel: str, payloads: Iterable[object], **options: Unpack[BatchOptions]
    ) -> tuple[list[Envelope], float]:
        return self._outlet.prepare_many(channel, payloads, **options)

    async def send(self, envelope: Envelope, delay: float) -> str:
        self._faults.tried.append(envelope.id)
        await self._faults.gate.wait()
        if self._faults.slowness:
            await asyncio.sleep(self._faults.slowness)
        if (error := self._faults.of.get(envelope.queue.channel)) is not None:
            raise error
        return await self._outlet.send(envelope, delay)


class _Faulty:
    """A cluster as its outbox sees it, with faults."""

    def __init__(self, cluster: Cluster, faults: Faults) -> None:
        self._cluster = cluster
        self._faults = faults

    @property
    def outlets(self) -> Outlets:
        outlets = self._cluster.outlets
        return replace(outlets, tasks=_FaultyOutlet(outlets.tasks, self._faults))

    def extend(self, extension: Extension) -> None:
        self._cluster.extend(extension)


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of the application, with outbox and inbox."""

    cluster: Cluster
    outbox: Outbox
    own_inbox: Inbox | None
    faults: Faults

    @property
    def inbox(self) -> Inbox:
        """Its inbox."""
        assert self.own_inbox is not None
        return self.own_inbox


class Bench:
    """Instances of one application on the environment under test.

    Attributes:
        engine: of the database.
        blocking: of the same database.
        effects: a table for what handlers do.
        events: what every instance reported, in order.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment: Environment = environment
        self.engine: AsyncEngine = create_async_engine(environment.url())
        self.blocking: Engine = create_engine(environment.blocking_url())
        for engine in (self.engine.sync_engine, self.blocking):
            environment.prepare(engine)
        metadata = MetaData()
        self._outbox = outbox_table(metadata, name="my_outbox")
        self._inbox = inbox_table(metadata, name="my_inbox")
        self.effects: Table = Table("effects", metadata, Column("what", String(100)))
        self.events: list[tuple[str, dict[str, object]]] = []
        self._factory = ClusterFactory(environment.broker())

    async def open(self) -> None:
        """Make the tables."""
        await create_tables(self.engine, self._outbox, self._inbox, self.effects)

    async def close(self) -> None:
        """Stop every instance and let go of the database."""
        await self._factory.close()
        await self.engine.dispose()
        self.blocking.dispose()

    # --- instances -----------------------------------------------------------------------

    async def instance(
        self,
        *,
        relay: bool = True,
        start: bool = True,
        subscribe: Callable[[Cluster], None] = lambda _: None,
        engine: AsyncEngine | None = None,
        inbox: bool = True,
        **options: Any,  # noqa: ANN401 - those of an outbox
    ) -> Instance:
        """Return one more instance; `options` are those of its outbox."""
        broker = self.environment.broker()
        where: dict[str, Any] = {"pubsub": {"url": broker}} if broker else {}
        [cluster] = await self._factory(start=False, **where)
        faults = Faults()
        quick: dict[str, Any] = {
            "table": self._outbox,
            "poll_interval": 0.2,
            "retry": RetryPolicy(initial_delay=0.05, max_delay=0.1),
        }
        used = self.engine if engine is None else engine
        outbox = Outbox(_Faulty(cluster, faults), used, relay=relay, **(quick | options))
        own = Inbox(cluster, used, table=self._inbox) if inbox else None
        cluster.telemetry.subscribe(lambda event, fields: self.events.append((event, dict(fields))))
        subscribe(cluster)
        if start:
            await cluster.start()
        return Instance(cluster, outbox, own, faults)

    async def clusters(self, count: int = 1, *, name: str | None = None) -> list[Cluster]:
        """Return instances without an outbox, which are not started; `name` the application's."""
        return await self._factory(count, name=name, start=False)

    def reports(self, event: str) -> list[dict[str, object]]:
        """Return the fields of every such event so far."""
        return [fields for name, fields in self.events if name == event]

    # --- transactions --------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self, kind: Kind) -> AsyncGenerator[Transaction]:
        """Have a transaction of a kind: committed at the end, rolled back by an error."""
        if kind == "async_session":
            async with AsyncSession(self.engine) as session, session.begin():
                yield session
        elif kind == "async_connection":
            async with self.engine.begin() as connection:
                yield connection
        elif kind == "session":
            async with _in_a_thread(Session(self.blocking)) as blocking:
                yield blocking
        else:
            async with _in_a_thread(await asyncio.to_thread(self.blocking.connect)) as plain:
                yield plain

    async def run(self, count: Callable[[Connection], T]) -> T:
        """Run something on a connection of its own, in a thread, and commit."""

        def work() -> T:
            with self.blocking.begin() as connection:
                return count(connection)

        return await asyncio.to_thread(work)

    def effect(self, what: str) -> Any:  # noqa: ANN401 - a statement
        """Return the statement that notes an effect."""
        return insert(self.effects).values(what=what)

    async def effects_of(self, what: str) -> int:
        """Count the effects that are committed."""
        counted = select(func.count()).where(self.effects.c.what == what)
        return await self.run(lambda connection: connection.execute(counted).scalar_one())


async def publish(
    outbox: Outbox,
    transaction: Transaction,
    channel: str,
    payload: object,
    **options: Any,  # noqa: ANN401 - those of a publish
) -> str:
    """Publish through whichever method takes the transaction."""
    if isinstance(transaction, AsyncSession | AsyncConnection):
        return await outbox.publish(transaction, channel, payload, **options)
    return await asyncio.to_thread(
        partial(outbox.blocking.publish, transaction, channel, payload, **options)
    )


@asynccontextmanager
async def _in_a_thread(transaction: Blocking) -> AsyncGenerator[Blocking]:
    # What blocks must not block the loop: the relay on it may be what the database waits for.
    try:
        yield transaction
        await asyncio.to_thread(transaction.commit)
    finally:
        await asyncio.to_thread(transaction.close)
