"""cluster-kit's event queue, with all its checks and promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.peer import Handle
from cluster_kit import Cluster, Settings

CHANNEL = "tasks"


class EventQueue:
    """One started cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._queue = cluster.event_queue

    async def publish(self, payload: object) -> None:
        await self._queue.publish(CHANNEL, payload)

    async def publish_later(self, payload: object, delay: float) -> None:
        await self._queue.publish(CHANNEL, payload, delay=delay)

    @asynccontextmanager
    async def consume(self, handle: Handle, *, prefetch: int) -> AsyncIterator[None]:
        async def process(payload: object) -> None:
            await handle(payload)

        self._queue.subscribe(CHANNEL, process, concurrency=prefetch)
        yield
        self._queue.unsubscribe(CHANNEL)


@asynccontextmanager
async def connect(url: str, queue: str) -> AsyncIterator[EventQueue]:
    async with Cluster(queue, settings=Settings(event_queue={"url": url})) as cluster:
        yield EventQueue(cluster)
