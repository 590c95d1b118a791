"""Sync messages after commits, to instance processes whose connections break."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session

from cluster_kit import Cluster, PublishFailure, Settings
from cluster_kit.broadcast import Transport
from cluster_kit.errors import TransportError
from cluster_kit.names import new_id
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually
from integration.load.journal import path_of
from integration.load.journal import read as read_journals
from integration.load.sync_process import SCHEMA, read
from integration.load.sync_verdict import Verdict, fate

_PATIENCE = 120.0
_ITEMS = 50
_ROLL_BACK_EVERY = 10
_OUTAGE_SECONDS = 3.0
_NUDGE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        url: of the broker; each instance gets a proxy in front of it.
        folder: for journals, logs and the database of SQLite.
        restart: restarts the broker; without it all links are refused for a while instead.
        database: a URL of SQLAlchemy; a file of SQLite by default.
        messages: to publish.
        instances: processes that hear them.
        rate: messages a second.
        transport: of sync messages.
        too_short: half of the instances are away longer than messages are kept for them, and
            nothing else happens.
        seed: of what happens at random.
    """

    url: str
    folder: Path
    restart: Callable[[], None] | None = None
    database: str = ""
    messages: int = 2_000
    instances: int = 8
    rate: float = 100.0
    transport: Transport = "sticky"
    too_short: bool = False
    seed: int = 1


class Writer:
    """Changes items in transactions, and publishes each change in its own."""

    def __init__(self, cluster: Cluster, engine: Engine, chance: random.Random) -> None:
        self._cluster = cluster
        self._engine = engine
        self._chance = chance
        self._version = 0
        self.published: list[int] = []
        self.rolled_back: list[int] = []
        self.unpublished: list[PublishFailure] = []
        cluster.on_publish_failure(self.unpublished.append)

    async def change(self, *, undo: bool = False) -> int:
        """Change an item and commit, or roll back; return its version."""
        self._version += 1
        name = f"item-{self._chance.randrange(_ITEMS)}"
        change = {"name": name, "version": self._version}
        with Session(self._engine) as session:
            session.execute(text("DELETE FROM ck_items WHERE name = :name"), change)
            session.execute(text("INSERT INTO ck_items VALUES (:name, :version)"), change)
            await self._cluster.sync_messages.publish("items", change, transaction=session)
            (session.rollback if undo else session.commit)()
        (self.rolled_back if undo else self.published).append(self._version)
        return self._version

    async def change_many(self, count: int, rate: float) -> None:
        """Change so many items, so many a second; beside them some that are rolled back."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for turn in range(count):
            await asyncio.sleep(begun + turn / rate - loop.time())
            if turn % _ROLL_BACK_EVERY == 0:
                await self.change(undo=True)
            await self.change()

    async def repeat(self) -> None:
        """Publish what could not be published."""
        while self.unpublished:
            with suppress(TransportError):
                await self.unpublished[0].repeat()
                self.unpublished.pop(0)


class Instances:
    """The processes, each behind a proxy of its own."""

    def __init__(self, plan: Plan, app: str, database: str) -> None:
        self._plan = plan
        self._app = app
        self._database = database
        self.proxies: dict[str, FaultProxy] = {}
        self._processes: dict[str, Process] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all, and leave none behind."""
        async with AsyncExitStack() as stack:
            for number in range(self._plan.instances):
                name = f"instance-{number}"
                self.proxies[name] = await stack.enter_async_context(FaultProxy(self._plan.url))
                self._processes[name] = await self._start(name)
                stack.push_async_callback(self._kill, name)
            await eventually(lambda: all(map(self.is_started, self.proxies)), timeout=_PATIENCE)
            yield

    async def _start(self, name: str) -> Process:
        command = [
            *(sys.executable, "-m", "integration.load.sync_process"),
            *("--journal", str(path_of(self._plan.folder, name)), "--database", self._database),
        ]
        variables = {
            "CLUSTER_KIT_APP": self._app,
            "CLUSTER_KIT_INSTANCE_ID": name,
            "CLUSTER_KIT_AMQP_URL": self.proxies[name].url,
            "CLUSTER_KIT_SYNC_MESSAGES__TRANSPORT": self._plan.transport,
            "CLUSTER_KIT_PUBSUB__STICKY_MAX_MESSAGES": "20" if self._plan.too_short else "10000",
        }
        with (self._plan.folder / f"{name}.log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **variables}, stdout=log, stderr=log
            )

    def is_started(self, name: str) -> bool:
        """Whether an instance hears; raises when it has ended."""
        if self._processes[name].returncode is not None:
            said = (self._plan.folder / f"{name}.log").read_text()
            raise RuntimeError(f"{name} has ended:\n{said[-2000:]}")
        return self.wrote(name, "\tcluster.started\t")

    def wrote(self, name: str, line: str) -> bool:
        """Whether an instance has written this down."""
        path = path_of(self._plan.folder, name)
        return path.exists() and line in path.read_text()

    async def stop(self) -> None:
        """Have all of them stop and write down what they hold."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_PATIENCE):
            for process in self._processes.values():
                await process.wait()

    async def _kill(self, name: str) -> None:
        process = self._processes[name]
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(plan: Plan) -> Verdict:
    """Carry out `plan`, and return what became of the messages."""
    database = plan.database or f"sqlite:///{plan.folder / 'items.db'}"
    engine, chance = _prepared(database), random.Random(plan.seed)
    app = f"load-{new_id()[:8]}"
    instances = Instances(plan, app, database)
    async with FaultProxy(plan.url) as proxy, instances.running():
        settings = Settings(
            amqp_url=proxy.url,
            pubsub={"publish_timeout": 60},
            sync_messages={"transport": plan.transport},
        )
        async with Cluster(app, settings=settings) as cluster:
            writer = Writer(cluster, engine, chance)
            break_things = _stay_away if plan.too_short else _break_at_random
            async with asyncio.TaskGroup() as group:
                changing = group.create_task(writer.change_many(plan.messages, plan.rate))
                group.create_task(
                    break_things(plan, [*instances.proxies.values()], proxy, changing)
                )
            unpublished = len(writer.unpublished)
            await writer.repeat()
            await _heard_the_end(writer, instances)
        await instances.stop()
    records, items = read_journals(plan.folder), read(engine)
    undone = set(map(str, writer.rolled_back))
    return Verdict(
        published=len(writer.published),
        rolled_back=len(undone),
        heard_of_rolled_back=sum(r.event == "heard" and r.task in undone for r in records),
        unpublished=unpublished,
        fates=[fate(name, records, writer.published, items) for name in instances.proxies],
        exact=plan.too_short,
    )


def _prepared(database: str) -> Engine:
    engine = create_engine(database)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: _in_wal_mode(connection))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS ck_items"))
        connection.execute(text(SCHEMA))
    return engine


def _in_wal_mode(connection: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = OFF"):
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]


async def _break_at_random(
    plan: Plan, proxies: list[FaultProxy], own: FaultProxy, changing: asyncio.Task[None]
) -> None:
    """Close the connections of one or the other; half way the broker is restarted."""
    chance = random.Random(plan.seed)
    expected = plan.messages / plan.rate
    for turn, proxy in enumerate(chance.sample([*proxies, own], len(proxies) + 1)):
        await asyncio.sleep(chance.uniform(0.5, 1.5) * expected / (len(proxies) + 3))
        proxy.cut()
        if turn == len(proxies) // 2:
            await _restart(plan, [*proxies, own])
    while not changing.done():
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        chance.choice([*proxies, own]).cut()


async def _restart(plan: Plan, proxies: list[FaultProxy]) -> None:
    if plan.restart is not None:
        await asyncio.to_thread(plan.restart)
        return
    for proxy in proxies:
        proxy.refuse()
    await asyncio.sleep(_OUTAGE_SECONDS)
    for proxy in proxies:
        proxy.resume()


async def _stay_away(
    plan: Plan, proxies: list[FaultProxy], _own: FaultProxy, _changing: asyncio.Task[None]
) -> None:
    """Keep every second instance away for a third of the time."""
    expected = plan.messages / plan.rate
    await asyncio.sleep(expected / 3)
    for proxy in proxies[::2]:
        proxy.refuse()
    await asyncio.sleep(expected / 3)
    for proxy in proxies[::2]:
        proxy.resume()


async def _heard_the_end(writer: Writer, instances: Instances) -> None:
    """Publish more until everybody has heard the last one."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            last = f"\theard\t{await writer.change()}\t"
            await asyncio.sleep(_NUDGE_SECONDS)
            if all(instances.is_started(name) for name in instances.proxies) and all(
                instances.wrote(name, last) for name in instances.proxies
            ):
                return
