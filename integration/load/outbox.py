"""Relays of an outbox are killed while they send, and what became of the messages is counted.

``python -m integration.load.outbox --messages 10000 --kills 50``

Transactions store messages, some are rolled back; two processes relay them, and one after the
other is killed (SIGKILL) in the middle of its work and replaced. Half of the messages are read by
another AMQP client, which sees every copy: none may be missing, the first copies of each key have
to be in order, and for each further copy of a message a relay has to have been killed that had
begun to send it and not settled it. The other half is handled by two instances through an inbox:
each has to have its effect exactly once. There may be no more repeats than kills times a batch.

Servers come from where the tests have them. The exit code is 0 when all of that holds, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
from sqlalchemy import Column, MetaData, String, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cluster_kit import Cluster, Delivery, Settings
from cluster_kit.clock import SystemClock
from cluster_kit.testing.servers import (
    NodeUnavailableError,
    start_postgresql,
    start_rabbitmq,
)
from cluster_kit.testing.waiting import eventually
from cluster_kit_sqlalchemy import Inbox, Outbox, create_tables
from integration.load.outbox_relays import BATCH_SIZE, Relays
from integration.load.outbox_verdict import Arrival, Verdict, judge

KEYS = 8
RELAYS = 2
CLOCK = SystemClock()
_PATIENCE = 120.0

EFFECTS = Table("effects", MetaData(), Column("id", String(64), index=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, and where."""

    messages: int
    kills: int
    broker: str
    database: str
    folder: Path
    app: str = "outbox-load"


class Reader(threading.Thread):
    """Reads a queue with another client, which knows of no copies."""

    def __init__(self, url: str, queue: str) -> None:
        super().__init__(name="reader", daemon=True)
        self.arrivals: list[Arrival] = []
        self.ids: set[str] = set()
        self._url, self._queue = url, queue
        self._ended = threading.Event()

    def run(self) -> None:
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=100)
            for method, properties, body in channel.consume(self._queue, inactivity_timeout=0.1):
                if self._ended.is_set():
                    return
                if method is not None:
                    self._note(properties, json.loads(body))
                    channel.basic_ack(method.delivery_tag)

    def _note(self, properties: Any, payload: Any) -> None:
        if payload is not None:
            id_ = properties.headers["ck-id"]
            self.arrivals.append(Arrival(id_, payload["key"], payload["number"]))
            self.ids.add(id_)

    def end(self) -> None:
        self._ended.set()
        self.join()


class Writer:
    """Stores messages in transactions, some of which are rolled back."""

    def __init__(self, outbox: Outbox, engine: AsyncEngine) -> None:
        self.committed: dict[str, set[str]] = {"raw": set(), "effects": set()}
        self.rolled_back: set[str] = set()
        self._outbox = outbox
        self._engine = engine
        self._numbers: Counter[str] = Counter()
        self._random = random.Random(17)

    async def write(self, count: int) -> None:
        """Commit so many messages."""
        left = count
        while left:
            size = min(left, self._random.randint(1, 20))
            kept = self._random.random() > 0.1
            async with AsyncSession(self._engine) as session:
                stored = [await self._publish(session) for _ in range(size)]
                await (session.commit() if kept else session.rollback())
            for channel, id_ in stored:
                (self.committed[channel] if kept else self.rolled_back).add(id_)
            left -= size if kept else 0

    async def _publish(self, session: AsyncSession) -> tuple[str, str]:
        channel = self._random.choice(("raw", "effects"))
        key = f"{channel}-{self._random.randrange(KEYS)}"
        self._numbers[key] += 1
        payload = {"key": key, "number": self._numbers[key]}
        return channel, await self._outbox.publish(session, channel, payload, key=key)


class Handlers:
    """Two instances that note effects through an inbox."""

    def __init__(self, plan: Plan, engine: AsyncEngine) -> None:
        self.clusters = [_cluster(plan) for _ in range(2)]
        self._inboxes = [Inbox(cluster, engine) for cluster in self.clusters]
        for cluster, inbox in zip(self.clusters, self._inboxes, strict=True):

            @inbox.handler("effects")
            async def handle(_: object, session: AsyncSession, delivery: Delivery) -> None:
                await session.execute(insert(EFFECTS).values(id=delivery.id))

            cluster.event_queue.subscribe("effects", handle, concurrency=4)

    @property
    def repeated(self) -> int:
        """Copies that came to an instance which had not handled the message itself."""
        return sum(inbox.stats().repeated for inbox in self._inboxes)


def _cluster(plan: Plan) -> Cluster:
    return Cluster(plan.app, settings=Settings(event_queue={"url": plan.broker}))


async def run(plan: Plan) -> Verdict:
    """Carry out a plan in an empty database and virtual host."""
    engine = create_async_engine(plan.database)
    await create_tables(engine)
    await create_tables(engine, EFFECTS)
    handlers = Handlers(plan, engine)
    first, second = handlers.clusters
    writer = Writer(Outbox(_cluster(plan), engine, relay=False), engine)
    began = CLOCK.monotonic()
    async with first, second:
        await first.event_queue.publish("raw", None)  # makes the queue
        reader = Reader(plan.broker, f"{plan.app}.raw")
        reader.start()
        async with Relays(plan.folder, plan.database, plan.broker, plan.app, RELAYS) as relays:
            await _kill_and_write(plan, writer, relays)
            await eventually(lambda: writer.committed["raw"] <= reader.ids, timeout=_PATIENCE)
            effects = await eventually(
                lambda: _effects(engine),
                lambda found: found.keys() >= writer.committed["effects"],
                timeout=_PATIENCE,
            )
            await eventually(lambda: _settled(first))
        await asyncio.to_thread(reader.end)
        effects = await _effects(engine)
    await engine.dispose()
    return judge(
        committed=writer.committed,
        rolled_back=writer.rolled_back,
        kills=len(relays.killed),
        left=relays.left(),
        batch_size=BATCH_SIZE,
        seconds=CLOCK.monotonic() - began,
        arrivals=reader.arrivals,
        effects=effects,
        kept_off=handlers.repeated,
    )


async def _kill_and_write(plan: Plan, writer: Writer, relays: Relays) -> None:
    part = plan.messages // (plan.kills + 1)
    chance = random.Random(4)
    for _ in range(plan.kills):
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.write(part))
            group.create_task(relays.kill_one_that_sends(chance.randint(1, max(1, part // 3))))
    await writer.write(plan.messages - part * plan.kills)


async def _effects(engine: AsyncEngine) -> Counter[str]:
    async with engine.connect() as connection:
        return Counter((await connection.execute(select(EFFECTS.c.id))).scalars())


async def _settled(cluster: Cluster) -> bool:
    """Whether the queue is empty, so that no late copy is missed."""
    depths = [await cluster.event_queue.depth(channel) for channel in ("raw", "effects")]
    return all(depth is not None and depth.ready == 0 for depth in depths)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills relays of an outbox, and counts.")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    try:
        broker, database = start_rabbitmq(), start_postgresql()
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    try:
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(
                messages=given.messages,
                kills=given.kills,
                broker=broker.new_url(),
                database=database.new_url().replace("postgresql:", "postgresql+asyncpg:", 1),
                folder=Path(folder),
            )
            verdict = asyncio.run(run(plan))
    finally:
        broker.close()
        database.close()
    sys.stdout.write(f"{verdict.as_json()}\n")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
