"""Who waits for locks on Redis hears of their releases, on one connection of each instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.locks import Lease
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import REDIS, PlainServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_aiocache import wakeups
from integration.locks_bench import own_server, running
from integration.test_locks_contract import say

KEYS = [f"key-{number}" for number in range(12)]
APART = 0.004  # seconds; less than the way to the server takes

pytestmark = pytest.mark.asyncio


@pytest.fixture
def server() -> Iterator[PlainServer]:
    with own_server(REDIS, to="stop") as server:
        yield server


@pytest_asyncio.fixture
async def holder(server: PlainServer) -> AsyncIterator[Cluster]:
    async with running(server.url) as cluster:
        yield cluster


def subscribed(server: PlainServer) -> tuple[int, int]:
    """How many connections listen, and to how many channels together."""
    listening = say(server.url, b"CLIENT LIST TYPE pubsub").count(b"id=")
    return listening, say(server.url, b"PUBSUB CHANNELS ck:unlocked:*").count(b"ck:unlocked:")


async def come_one_after_the_other(cluster: Cluster) -> list[asyncio.Task[Lease]]:
    coming: list[asyncio.Task[Lease]] = []
    for key in KEYS:
        coming.append(asyncio.ensure_future(cluster.locks.acquire(key, timeout=60)))
        await asyncio.sleep(APART)
    return coming


@pytest.mark.parametrize("protocol", [2, 3])
async def test_who_comes_while_it_connects_has_no_connection_of_his_own(
    server: PlainServer, holder: Cluster, protocol: int
) -> None:
    held = [await holder.locks.acquire(key) for key in KEYS]
    async with FaultProxy(server.url) as proxy, running(f"{proxy.url}?protocol={protocol}") as far:
        proxy.delay(0.005)
        waiting = await come_one_after_the_other(far)
        await eventually(lambda: subscribed(server) == (1, len(KEYS)))

        for lease, waiter in zip(held, waiting, strict=True):
            assert not waiter.done()
            await lease.release()
            await (await waiter).release()
        assert subscribed(server)[0] == 1
    await eventually(lambda: subscribed(server) == (0, 0))


async def test_a_lost_connection_is_followed_by_one_that_hears_all(
    server: PlainServer, holder: Cluster
) -> None:
    held = [await holder.locks.acquire(key) for key in KEYS]
    async with running(server.url) as other:
        waiting = await come_one_after_the_other(other)
        for _ in range(3):
            await eventually(lambda: subscribed(server) == (1, len(KEYS)))
            assert say(server.url, b"CLIENT KILL TYPE pubsub").startswith(b":1")
            waiting.append(asyncio.ensure_future(other.locks.acquire(KEYS[0], timeout=60)))
        await eventually(lambda: subscribed(server) == (1, len(KEYS)))

        for lease in held:
            await lease.release()
        for waiter in waiting:
            await (await waiter).release()


async def test_the_connection_goes_when_nobody_waits_and_comes_back(
    server: PlainServer, holder: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(wakeups, "_LOOK_SECONDS", 0.1)
    async with running(server.url) as other:
        for _ in range(3):
            held = [await holder.locks.acquire(key) for key in KEYS]
            waiting = await come_one_after_the_other(other)
            await eventually(lambda: subscribed(server) == (1, len(KEYS)))
            for lease in held:
                await lease.release()
            for waiter in waiting:
                await (await waiter).release()
            await eventually(lambda: subscribed(server) == (0, 0))
