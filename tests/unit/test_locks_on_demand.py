from __future__ import annotations

import asyncio
import logging

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import LockUnavailable, NotStartedError
from cluster_kit.settings import EventQueueSettings
from cluster_kit.testing.waiting import eventually

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
