"""What one memcached is used for at a time, by one instance."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.locks import LeaseState
from cluster_kit.testing.waiting import eventually
from tests.unit.memcached_server import FakeMemcached, fake_memcached


def cluster_on(server: FakeMemcached) -> Cluster:
    settings = Settings(app="shop", memcached_url=server.url, locks={"url": server.url})
    return Cluster("shop", settings=settings)


@pytest.mark.asyncio
async def test_a_burst_of_a_cache_costs_nobody_a_lock() -> None:
    async with fake_memcached() as server, cluster_on(server) as cluster:
        cache = await cluster.caches.create_cache("rows", store="memcached", l1_size=0)
        lease = await cluster.locks.acquire("a", ttl=3)
        server.cache_seconds = 0.1
        burst = [asyncio.create_task(cache.get(f"key-{number}")) for number in range(200)]
        await eventually(lambda: server.reads >= 20)

        await lease.extend(3)  # a renewal is asked for in the same way

        assert not all(read.done() for read in burst)
        assert lease.state is LeaseState.HELD
        assert await asyncio.gather(*burst) == [None] * len(burst)
        assert server.connections <= 40
        await lease.release()
