"""cluster-kit's event queue, with all its checks and promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.peer import AsyncPeer, AsyncPublish, Handle, Payload
from cluster_kit import Cluster, RetryPolicy, Settings

_CHANNEL = "tasks"
QUEUES = (f"{{}}.{_CHANNEL}", f"{{}}.{_CHANNEL}.dead")


def _cluster(url: str, queue: str) -> Cluster:
    return Cluster(queue, settings=Settings(amqp_url=url))


@asynccontextmanager
async def publisher(url: str, queue: str) -> AsyncIterator[AsyncPublish]:
    """Connect and give what publishes, as a peer does."""
    async with _cluster(url, queue) as cluster:

        async def publish(payload: Payload) -> None:
            await cluster.event_queue.publish(_CHANNEL, payload)

        yield publish


@asynccontextmanager
async def _later(url: str, queue: str) -> AsyncIterator[AsyncPublish]:
    async with _cluster(url, queue) as cluster:

        async def publish(payload: Payload) -> None:
            await cluster.event_queue.publish(_CHANNEL, payload, delay=payload["delay"])

        yield publish


@asynccontextmanager
async def consumer(
    url: str, queue: str, handle: Handle, prefetch: int, *, immediate: int = 0
) -> AsyncIterator[None]:
    """Handle messages, as a peer does; so many retries of each are in place."""

    async def process(payload: Payload) -> None:
        handle(payload)

    cluster = _cluster(url, queue)
    at_once = RetryPolicy(initial_delay=0, immediate=immediate)
    cluster.event_queue.subscribe(_CHANNEL, process, concurrency=prefetch, retry=at_once)
    async with cluster:
        yield


PEER = AsyncPeer(
    title="cluster-kit",
    packages=("cluster-kit",),
    publisher=publisher,
    consumer=consumer,
    later=_later,
    queues=QUEUES,
    note="the whole event queue: envelope, timeout, telemetry, ledger; a retry is a confirmed copy",
)
