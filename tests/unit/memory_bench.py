"""Instances on memory hubs, and what they are handed, for the tests of the memory adapter."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from cluster_kit.clock import Clock, SystemClock
from cluster_kit.message import DeadReason, Death, Envelope
from cluster_kit.names import QueueName
from cluster_kit.ports import AdapterContext, Consumer, EventQueueAdapter, Received
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.event_queue import MemoryEventQueue

T = TypeVar("T")

QUEUE = QueueName("shop", "mails")


def fresh_url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def task(
    id_: str, *, queue: QueueName = QUEUE, body: bytes | None = None, **fields: Any
) -> Envelope:
    return Envelope(queue=queue, id=id_, body=id_.encode() if body is None else body, **fields)


def letter(id_: str, **fields: Any) -> Envelope:
    return replace(task(id_, **fields), death=Death(reason=DeadReason.FAILED, died_at=1.0))


class Inbox:
    """A consumer and everything it was handed."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.consumer: Consumer

    @property
    def ids(self) -> list[str]:
        return [received.envelope.id for received in self.received]

    async def holds(self, *ids: str) -> None:
        await eventually(lambda: self.ids, lambda seen: seen == list(ids), interval=0.001)

    async def ack_all(self) -> None:
        while self.received:
            await self.received.pop(0).ack()


class WatchedSupervisor(Supervisor):
    """Remembers which of its tasks ended with an error, so that a test can insist on none."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        task = super().spawn(work, name=name)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)


class Instance:
    """One adapter with its surroundings."""

    def __init__(self, url: str, *, app: str, clock: Clock | None, crash_limit: int) -> None:
        self.supervisor = WatchedSupervisor()
        self.events: list[tuple[str, dict[str, object]]] = []
        self.context = AdapterContext(
            app=app,
            instance_id=uuid.uuid4().hex,
            tasks=self.supervisor,
            emit=lambda event, /, **fields: self.events.append((event, fields)),
            clock=clock or SystemClock(),
            crash_limit=crash_limit,
        )
        self.adapter = MemoryEventQueue(url, self.context)

    async def publish(self, *ids: str, delay: float = 0.0, **fields: Any) -> None:
        for id_ in ids:
            await self.adapter.publish(task(id_, **fields), delay=delay, timeout=10)

    async def bury(self, *ids: str) -> None:
        for id_ in ids:
            await self.adapter.bury(letter(id_), timeout=10)

    async def consume(
        self, *, prefetch: int = 100, queue: QueueName = QUEUE, paused: bool = False
    ) -> Inbox:
        inbox = Inbox()
        inbox.consumer = await self.adapter.consume(
            queue, prefetch=prefetch, on_delivery=inbox.received.append, paused=paused
        )
        return inbox

    async def dead(self, queue: QueueName = QUEUE) -> list[Envelope]:
        async with self.adapter.read_dead(queue) as entries:
            return [entry.envelope async for entry in entries]

    async def ready(self, queue: QueueName = QUEUE) -> int:
        depth = await self.adapter.depth(queue)
        return -1 if depth is None else depth.ready


@asynccontextmanager
async def joined(
    url: str, *, app: str = "shop", clock: Clock | None = None, crash_limit: int = 10
) -> AsyncGenerator[Instance]:
    instance = Instance(url, app=app, clock=clock, crash_limit=crash_limit)
    adapter: EventQueueAdapter = instance.adapter
    await adapter.connect()
    try:
        yield instance
    finally:
        await adapter.close()
        assert await instance.supervisor.close() == []
        assert instance.supervisor.failures == []


async def let_run(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
