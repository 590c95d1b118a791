"""Questions to the broker that do not go through a peer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import aio_pika
from aio_pika.exceptions import AMQPError

from cluster_kit.testing.servers.handshake import server_properties

_SETTLED = 3.0
"""Seconds: what a broker says about a quorum queue lags a little behind."""


async def _ready(url: str, queue: str, expected: int) -> int:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        loop = asyncio.get_running_loop()
        end = loop.time() + _SETTLED
        while True:
            declared = await channel.declare_queue(queue, passive=True)
            count = declared.declaration_result.message_count or 0
            if count == expected or loop.time() > end:
                return count
            await asyncio.sleep(0.05)


def ready(url: str, queue: str, expected: int) -> int:
    """Return how many messages wait in a queue; wait a moment for it to be `expected`."""
    return asyncio.run(_ready(url, queue, expected))


async def _drop(url: str, queues: Sequence[str]) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for queue in queues:
            with suppress(AMQPError):
                await channel.queue_delete(queue)


def drop(url: str, queues: Sequence[str]) -> None:
    """Delete the queues that are there."""
    asyncio.run(_drop(url, queues))


def version(url: str) -> str:
    """Return the name and version of the broker."""
    properties = server_properties(url, timeout=10.0)
    return f"{properties.get('product')} {properties.get('version')}"
