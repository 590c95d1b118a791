"""What the tests of the AMQP adapter share: an adapter to look into, and a raw client beside it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiormq

from cluster_kit.errors import ConnectionLost
from cluster_kit.message import DeadReason, Death, Envelope
from cluster_kit.names import QueueName, new_id
from cluster_kit.ports import AdapterContext, Received
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.proxy import TASK_PREFIX
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.tasks.adapter import AmqpEventQueue


class Bench:
    """An adapter under test. Names are unique, so that a shared virtual host does no harm."""

    open = 0

    def __init__(self, url: str, *, app: str = "", **context: Any) -> None:
        self.app = app or f"app-{new_id()[:8]}"
        self.events: list[tuple[str, dict[str, object]]] = []
        self.tasks = Supervisor()
        self.context = AdapterContext(
            app=self.app,
            instance_id=f"instance-{new_id()[:8]}",
            tasks=self.tasks,
            emit=self._emit,
            **context,
        )
        self.adapter = AmqpEventQueue(url, self.context)

    def _emit(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def heard(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.events if name == event]

    def queue(self, channel: str = "mails") -> QueueName:
        return QueueName(self.app, channel)

    def task(self, channel: str = "mails", **fields: Any) -> Envelope:
        given: dict[str, Any] = {
            "queue": self.queue(channel),
            "id": new_id(),
            "body": b'{"n":1}',
            "content_type": "application/json",
            "published_at": time.time(),
            "origin": self.context.instance_id,
        }
        return Envelope(**(given | fields))

    def dead(self, envelope: Envelope, reason: DeadReason = DeadReason.FAILED) -> Envelope:
        return replace(envelope, death=Death(reason=reason, died_at=time.time()))

    async def publish(self, *envelopes: Envelope, delay: float = 0.0) -> None:
        for envelope in envelopes:
            await self.adapter.publish(envelope, delay=delay, timeout=20.0)

    async def consume_when_possible(self, taker: Taker, prefetch: int) -> None:
        """Consume as soon as there is a connection; a fault may not have been noticed yet."""

        async def consume() -> bool:
            try:
                await self.adapter.consume(self.queue(), prefetch=prefetch, on_delivery=taker)
            except ConnectionLost:
                return False
            return True

        await eventually(consume)


class Taker:
    """Takes deliveries as a service would; settles them when told."""

    def __init__(self, *, acks: bool = False) -> None:
        self.received: list[Received] = []
        self.at: dict[str, float] = {}
        self._acks = acks
        self._tasks = Supervisor()

    def __call__(self, received: Received) -> None:
        self.received.append(received)
        self.at.setdefault(received.envelope.id, time.monotonic())
        if self._acks:
            self._tasks.spawn(self._ack(received), name="taker ack")

    async def _ack(self, received: Received) -> None:
        try:
            await received.ack()
        except Exception:  # noqa: BLE001 - it comes again
            self.received.remove(received)

    @property
    def ids(self) -> list[str]:
        return [received.envelope.id for received in self.received]


@asynccontextmanager
async def bench(url: str, *, connect: bool = True, **context: Any) -> AsyncIterator[Bench]:
    """Make an adapter; afterwards nothing of it may be left and nothing may have been muttered."""
    loop = asyncio.get_running_loop()
    muttered: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, told: None if _of_proxy(told) else muttered.append(told))
    before = asyncio.all_tasks()
    made = Bench(url, **context)
    Bench.open += 1
    try:
        if connect:
            await made.adapter.connect()
        yield made
    finally:
        await made.adapter.close()
        Bench.open -= 1
    if Bench.open:
        return  # what there is may be the others'
    await _settled(before)
    gc.collect()
    await asyncio.sleep(0)
    assert muttered == [], muttered


def _of_proxy(told: dict[str, Any]) -> bool:
    """Python 3.11 complains of the fault proxy's connections that are cancelled."""
    return isinstance(told.get("exception"), asyncio.CancelledError) and "proxy" in repr(told)


async def _settled(before: set[asyncio.Task[Any]]) -> None:
    """Wait a moment for the driver's own tasks; what is left then has leaked."""
    deadline = time.monotonic() + 5.0
    while left := [
        task
        for task in asyncio.all_tasks() - before
        if not task.get_name().startswith((TASK_PREFIX, "taker"))
    ]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)


@asynccontextmanager
async def raw_channel(url: str) -> AsyncIterator[Any]:
    """Another AMQP client."""
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def publish_raw(
    url: str, exchange: str, key: str, body: bytes = b"{}", **properties: Any
) -> None:
    """Publish as another program would."""
    async with raw_channel(url) as channel:
        await channel.basic_publish(
            body,
            exchange=exchange,
            routing_key=key,
            mandatory=True,
            properties=aiormq.spec.Basic.Properties(**properties),
        )
