"""aio-pika without anything around it: the yardstick."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from benchmarks.peer import AgainError, AsyncPeer, AsyncPublish, Handle, Payload


async def _declare(channel: AbstractChannel, queue: str) -> AbstractQueue:
    return await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})


@asynccontextmanager
async def _publisher(url: str, queue: str) -> AsyncIterator[AsyncPublish]:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.declare_exchange(f"{queue}.exchange", durable=True)
        await (await _declare(channel, queue)).bind(exchange, queue)

        async def publish(payload: Payload) -> None:
            message = aio_pika.Message(
                json.dumps(payload, separators=(",", ":")).encode(),
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, queue, mandatory=True)

        yield publish


@asynccontextmanager
async def _consumer(url: str, queue: str, handle: Handle, prefetch: int) -> AsyncIterator[None]:
    async def on_message(message: AbstractIncomingMessage) -> None:
        try:
            handle(json.loads(message.body))
        except AgainError:
            await message.nack(requeue=True)
        else:
            await message.ack()

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        declared = await _declare(channel, queue)
        tag = await declared.consume(on_message)
        yield
        await declared.cancel(tag)


PEER = AsyncPeer(
    title="aio-pika",
    packages=("aio-pika", "aiormq", "pamqp"),
    publisher=_publisher,
    consumer=_consumer,
    note="nothing around it; a retry is a nack with requeue, which knows neither delay nor limit",
)
