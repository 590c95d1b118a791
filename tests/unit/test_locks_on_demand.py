from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import ConnectError, LockUnavailable, NotStartedError
from cluster_kit.locks import LockManager
from cluster_kit.ports import AdapterSpec
from cluster_kit.settings import EventQueueSettings
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.lock_table import LockTable
from cluster_kit_memory.locks import MemoryLocks

QUEUE = EventQueueSettings(url="memory://")


class Server:
    """Counts who connects, and hangs up at once."""

    def __init__(self) -> None:
        self.visits = 0
        self.server: asyncio.Server | None = None

    async def start(self) -> str:
        self.server = await asyncio.start_server(self._visit, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        return f"redis://127.0.0.1:{port}/0"

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()

    async def _visit(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.transport.abort()


@pytest.mark.asyncio
async def test_a_server_that_is_only_implied_is_met_by_the_first_lock() -> None:
    server = Server()
    url = await server.start()
    async with Cluster("shop", settings=Settings(redis_url=url, event_queue=QUEUE)) as cluster:
        assert cluster.health()["adapters"]["locks"]["detail"] == "not used yet"
        assert server.visits == 0

        with pytest.raises(LockUnavailable) as refused:
            await cluster.locks.acquire("a", timeout=0)

        with pytest.raises(LockUnavailable):
            await cluster.locks.rate_limit("a", 1, 60).acquire(timeout=0.3)

        assert server.visits > 0
        assert "cannot connect" in str(refused.value)
        assert cluster.health()["adapters"]["locks"]["status"] == "down"
        assert await asyncio.wait_for(cluster.stop(), 10) == []
    await server.close()


@pytest.mark.asyncio
async def test_a_wait_for_a_server_that_is_away_asks_on_and_ends_with_the_cluster(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    url = await server.start()
    settings = Settings(redis_url=url, event_queue=QUEUE)
    async with Cluster("shop", settings=settings) as cluster:
        waiting = asyncio.ensure_future(cluster.locks.try_acquire("a", timeout=20))
        await eventually(lambda: server.visits > 2)
        await cluster.stop()
        with pytest.raises(NotStartedError):
            await waiting
    await server.close()
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


class RefusingLocks(MemoryLocks):
    """Their server does not know this user."""

    async def connect(self) -> None:
        raise ConnectError("redis://localhost", "wrong password", retryable=False)


async def use_in_every_way(locks: LockManager) -> list[LockUnavailable]:
    async def hold() -> None:
        async with locks.hold("a"):
            pass

    async def lead() -> None:
        async for _ in locks.leader("a"):
            pass

    limit = locks.rate_limit("a", 1, 60)
    ways = (hold, lead, locks.semaphore("a", 3).acquire, limit.acquire, partial(locks.inspect, "a"))
    errors: list[LockUnavailable] = []
    for way in ways:
        with pytest.raises(LockUnavailable) as refused:
            await asyncio.wait_for(way(), 10)
        errors.append(refused.value)
    return errors


@pytest.mark.asyncio
async def test_who_is_refused_for_good_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(redis_url="redis://localhost", event_queue=QUEUE)
    cluster = Cluster("shop", settings=settings)
    cluster.registry.register(AdapterSpec(name="aiocache", schemes=("redis",), locks=RefusingLocks))
    async with cluster:
        errors = await use_in_every_way(cluster.locks)

    reason = (
        "redis_url (CLUSTER_KIT_REDIS_URL): cannot connect to redis://localhost: wrong password"
    )
    assert [(error.reason, error.retryable) for error in errors] == [(reason, False)] * 5
    warnings = [r.getMessage() for r in caplog.records if "wrong password" in r.getMessage()]
    assert warnings == [f"locks: {reason}"]


class ForbiddenLocks(MemoryLocks):
    """Their server lets this user connect, and do nothing."""

    async def connect(self) -> None: ...

    def table(self, name: str) -> LockTable:
        raise LockUnavailable(name, "no right to use it", retryable=False)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("settings", "source"),
    [
        (Settings(redis_url="redis://localhost"), "redis_url (CLUSTER_KIT_REDIS_URL)"),
        (Settings(locks={"url": "redis://localhost"}), "locks.url (CLUSTER_KIT_LOCKS__URL)"),
    ],
)
async def test_who_has_no_right_to_use_it_is_told_which_setting_gives_it(
    settings: Settings, source: str
) -> None:
    cluster = Cluster("shop", settings=replace(settings, event_queue=QUEUE))
    cluster.registry.register(
        AdapterSpec(name="aiocache", schemes=("redis",), locks=ForbiddenLocks)
    )
    async with cluster:
        errors = await use_in_every_way(cluster.locks)

    reason = f"{source}: no right to use it"
    assert [(error.reason, error.retryable) for error in errors] == [(reason, False)] * 5


@pytest.mark.asyncio
async def test_locks_in_memory_are_of_no_event_loop_before_their_first_use() -> None:
    done: list[bool] = []

    async def elsewhere() -> None:
        async with Cluster("shop", settings=Settings(event_queue={"url": "memory://b"})):
            done.append(True)

    one = Cluster("shop", settings=Settings(event_queue={"url": "memory://a"}))
    async with one, one.locks.hold("a"):
        await asyncio.to_thread(asyncio.run, elsewhere())

    assert done == [True]
