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
        self, channel: AbstractChannel, exchange: AbstractExchange, declared: AbstractQueue
    ) -> None:
        self._channel, self._exchange, self._declared = channel, exchange, declared
        self.queue = declared.name

    async def publish(self, payload: object) -> None:
        """Publish and wait for the confirm."""
        message = aio_pika.Message(
            json.dumps(payload, separators=(",", ":")).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, self.queue, mandatory=True)

    async def publish_later(self, payload: object, delay: float) -> None:
        """Publish for later."""
        raise NotImplementedError("aio-pika has no delays")

    @asynccontextmanager
    async def consume(self, handle: Handle, *, prefetch: int) -> AsyncIterator[None]:
        """Handle, then acknowledge."""
        await self._channel.set_qos(prefetch_count=prefetch)

        async def on_message(message: AbstractIncomingMessage) -> None:
            async with message.process():
                await handle(json.loads(message.body))

        tag = await self._declared.consume(on_message)
        yield
        await self._declared.cancel(tag)


@asynccontextmanager
async def connect(url: str, queue: str) -> AsyncIterator[AioPika]:
    """Connect."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.declare_exchange(f"{queue}.exchange", durable=True)
        declared = await channel.declare_queue(
            queue, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await declared.bind(exchange, queue)
        yield AioPika(channel, exchange, declared)
