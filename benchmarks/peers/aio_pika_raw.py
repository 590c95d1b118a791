"""aio-pika without anything around it: the yardstick."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import (
    AbstractChannel,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)

from benchmarks.peer import Handle


class AioPika:
    """One connection, one channel, one exchange, one queue."""

    def __init__(
        self, channel: AbstractChannel, exchange: AbstractExchange, queue: AbstractQueue
    ) -> None:
        self._channel, self._exchange, self._queue = channel, exchange, queue

    async def publish(self, payload: object) -> None:
        message = aio_pika.Message(
            json.dumps(payload).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, self._queue.name, mandatory=True)

    async def publish_later(self, payload: object, delay: float) -> None:
        raise NotImplementedError("aio-pika has no delays")

    @asynccontextmanager
    async def consume(self, handle: Handle, *, prefetch: int) -> AsyncIterator[None]:
        await self._channel.set_qos(prefetch_count=prefetch)

        async def on_message(message: AbstractIncomingMessage) -> None:
            async with message.process():
                await handle(json.loads(message.body))

        tag = await self._queue.consume(on_message)
        yield
        await self._queue.cancel(tag)


@asynccontextmanager
async def connect(url: str, queue: str) -> AsyncIterator[AioPika]:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.declare_exchange(f"{queue}.exchange", durable=True)
        declared = await channel.declare_queue(
            queue, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await declared.bind(exchange, queue)
        yield AioPika(channel, exchange, declared)
