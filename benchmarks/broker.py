"""Questions to the broker that do not go through a peer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aio_pika
from aio_pika.exceptions import AMQPError

from cluster_kit.testing.servers.handshake import server_properties

_SETTLED = 2.0
"""Seconds: what a broker says about a quorum queue lags a little behind."""


async def ready(url: str, queue: str) -> int:
    """Return how many messages wait in a queue, once the number does not change any more."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        loop = asyncio.get_running_loop()
        end, seen = loop.time() + _SETTLED, -1
        while loop.time() < end:
            declared = await channel.declare_queue(queue, passive=True)
            count = declared.declaration_result.message_count or 0
            if count == seen:
                return count
            seen = count
            await asyncio.sleep(0.1)
        return seen


async def drop(url: str, queue: str) -> None:
    """Delete a queue, if it is there."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        with suppress(AMQPError):
            await channel.queue_delete(queue)


def version(url: str) -> str:
    """Return the name and version of the broker."""
    properties = server_properties(url, timeout=10.0)
    return f"{properties.get('product')} {properties.get('version')}"
