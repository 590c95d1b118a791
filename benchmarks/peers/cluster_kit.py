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
        self._event_queue = cluster.event_queue
        self.queue = f"{cluster.name}.{CHANNEL}"

    async def publish(self, payload: object) -> None:
        """Publish and wait for the confirm."""
        await self._event_queue.publish(CHANNEL, payload)

    async def publish_later(self, payload: object, delay: float) -> None:
        """Publish for later."""
        await self._event_queue.publish(CHANNEL, payload, delay=delay)

    @asynccontextmanager
    async def consume(self, handle: Handle, *, prefetch: int) -> AsyncIterator[None]:
        """Handle, then acknowledge."""

        async def process(payload: object) -> None:
            await handle(payload)

        self._event_queue.subscribe(CHANNEL, process, concurrency=prefetch)
        yield
        self._event_queue.unsubscribe(CHANNEL)


@asynccontextmanager
async def connect(url: str, queue: str) -> AsyncIterator[EventQueue]:
    """Start a cluster."""
    async with Cluster(queue, settings=Settings(event_queue={"url": url})) as cluster:
        yield EventQueue(cluster)
