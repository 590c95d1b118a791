"""FastStream's RabbitMQ broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from faststream.rabbit.schemas.queue import QueueType

from benchmarks.peer import AsyncPeer, AsyncPublish, Handle, Payload


def _queue(name: str) -> RabbitQueue:
    return RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True)


@asynccontextmanager
async def _publisher(url: str, queue: str) -> AsyncIterator[AsyncPublish]:
    async with RabbitBroker(url, logger=None) as broker:
        await broker.declare_queue(_queue(queue))
        publisher = broker.publisher(_queue(queue), persist=True, mandatory=True)
        await broker.start()

        async def publish(payload: Payload) -> None:
            await publisher.publish(payload)

        yield publish


@asynccontextmanager
async def _consumer(url: str, queue: str, handle: Handle, prefetch: int) -> AsyncIterator[None]:
    async def process(payload: Payload) -> None:
        handle(payload)

    channel = Channel(prefetch_count=prefetch)
    async with RabbitBroker(url, logger=None, default_channel=channel) as broker:
        broker.subscriber(_queue(queue), ack_policy=AckPolicy.NACK_ON_ERROR)(process)
        await broker.start()
        yield


PEER = AsyncPeer(
    title="FastStream",
    packages=("faststream",),
    publisher=_publisher,
    consumer=_consumer,
    note="a retry is a nack with requeue (NACK_ON_ERROR), which knows neither delay nor limit",
)
