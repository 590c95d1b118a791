"""taskiq with taskiq-aio-pika."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from taskiq import SimpleRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

from benchmarks.peer import AsyncPeer, AsyncPublish, Handle, Payload

_TASK = "work"


def _broker(url: str, queue: str, prefetch: int) -> AioPikaBroker:
    return AioPikaBroker(
        url,
        qos=prefetch,
        exchange=Exchange(name=f"{queue}.exchange"),
        task_queues=[Queue(name=queue, type=QueueType.QUORUM)],
        dead_letter_queue=Queue(name=f"{queue}.dead", type=QueueType.QUORUM),
    ).with_middlewares(SimpleRetryMiddleware(default_retry_label=True))


@asynccontextmanager
async def _publisher(url: str, queue: str) -> AsyncIterator[AsyncPublish]:
    async def work(payload: Payload) -> None:
        raise NotImplementedError("only published here")

    broker = _broker(url, queue, prefetch=1)
    task = broker.register_task(work, task_name=_TASK)
    await broker.startup()

    async def publish(payload: Payload) -> None:
        await task.kiq(payload)

    yield publish
    await broker.shutdown()


@asynccontextmanager
async def _consumer(url: str, queue: str, handle: Handle, prefetch: int) -> AsyncIterator[None]:
    async def work(payload: Payload) -> None:
        handle(payload)

    broker = _broker(url, queue, prefetch)
    broker.register_task(work, task_name=_TASK)
    receiver = asyncio.create_task(
        run_receiver_task(broker, run_startup=True, max_async_tasks=prefetch)
    )
    yield
    receiver.cancel()
    with suppress(asyncio.CancelledError):
        await receiver
    await broker.shutdown()


PEER = AsyncPeer(
    title="taskiq",
    packages=("taskiq", "taskiq-aio-pika"),
    publisher=_publisher,
    consumer=_consumer,
    queues=("{}", "{}.dead"),
    note="a retry is a confirmed copy (SimpleRetryMiddleware)",
)
