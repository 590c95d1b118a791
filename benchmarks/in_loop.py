"""Publishes and consumes through a peer that runs in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks import payload
from benchmarks.load import POLL, PREFETCH, Load, Published
from benchmarks.measure import Standstill, Tally
from benchmarks.peer import AsyncPeer, AsyncPublish


async def publish(peer: AsyncPeer, url: str, queue: str, load: Load) -> dict[str, object]:
    """Publish at full speed."""
    async with peer.publisher(url, queue) as send:
        # Whatever is made at the first publish is not measured; a single one is all of it.
        skipped = 0 if load.count else await _send_first(send)
        published, numbers = Published(load), load.numbers()

        async def lane() -> None:
            for number in numbers:
                await send(payload.make(number + skipped))
                published.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(load.lanes):
                group.create_task(lane())
        return published.figures() | {"stored": published.count + skipped}


async def _send_first(send: AsyncPublish) -> int:
    await send(payload.make(0))
    return 1


async def pace(
    peer: AsyncPeer, url: str, queue: str, *, rate: float, count: int
) -> dict[str, object]:
    """Publish `count` payloads, `rate` a second, each at its time even if others are under way."""
    loop = asyncio.get_running_loop()
    async with peer.publisher(url, queue) as send, asyncio.TaskGroup() as group:
        first = loop.time()
        for number in range(count):
            await asyncio.sleep(first + number / rate - loop.time())
            group.create_task(_send(send, number))
    return {"stored": count}


async def _send(send: AsyncPublish, number: int) -> None:
    await send(payload.make(number))


async def publish_later(
    peer: AsyncPeer, url: str, queue: str, delays: list[float]
) -> dict[str, object]:
    """Publish one payload for each delay, in this order, and disconnect."""
    if peer.later is None:
        raise ValueError(f"{peer.title} has no delays")
    async with peer.later(url, queue) as send:
        for number, delay in enumerate(delays):
            await send(payload.make(number) | {"delay": delay})
    return {"stored": len(delays)}


async def consume(
    peer: AsyncPeer, url: str, queue: str, tally: Tally, *, ready: Callable[[], None], rest: float
) -> None:
    """Consume until the tally has all, then rest so many seconds."""
    stop = Standstill(tally)
    async with peer.consumer(url, queue, tally.handle, PREFETCH):
        ready()
        while not stop():  # noqa: ASYNC110 - an event would be one more thing done for a message
            await asyncio.sleep(POLL)
        await asyncio.sleep(rest)
        tally.look()
