"""How old a value may be that was loaded, or that stands in for one that could not be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster_kit.errors import CacheLoadTimeout
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from tests.unit.test_cache_faults import OwnError, fail
from tests.unit.test_cache_links import two_in_hand

DEGRADED_TTL = 0.3


@pytest.mark.asyncio
async def test_who_could_not_load_a_value_is_the_only_one_to_get_an_old_one(
    cluster_factory: ClusterFactory,
) -> None:
    url = f"memory://{cluster_factory.name}"
    here, there = [
        await c.caches.create_cache("rows", ttl=0.1, fail_safe=60)
        for c in await cluster_factory(2, cache={"url": url})
    ]
    await here.set("row", "old")
    assert await there.get("row") == "old"
    await asyncio.sleep(0.15)

    for cache in (here, there):
        assert [await cache.wrap("row", fail) for _ in range(3)] == ["old"] * 3
        assert cache.stats().stale == 3
        assert await cache.get("row") is None
        assert await cache.mget("row") == [None]
    assert here.stats().failures + there.stats().failures == 1


@pytest.mark.asyncio
async def test_each_who_waits_for_a_load_that_fails_counts_as_one_with_an_old_value(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(cache={"url": "memory://"})
    cache = await cluster.caches.create_cache("rows", ttl=0.05, fail_safe=60)
    await cache.set("row", "old")
    await asyncio.sleep(0.1)
    go = asyncio.Event()

    async def fail_later() -> object:
        await go.wait()
        raise OwnError

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(cache.wrap("row", fail_later)) for _ in range(5)]
        await eventually(lambda: cache.stats().joined == 4)
        go.set()

    assert [await caller for caller in callers] == ["old"] * 5
    assert cache.stats().stale == 5


@pytest.mark.asyncio
@pytest.mark.parametrize("store", [True, False])
async def test_what_is_loaded_away_from_others_is_as_old_as_the_beginning_of_its_load(
    cluster_factory: ClusterFactory, store: bool
) -> None:
    [(one, *_), (two, stores, link)] = await two_in_hand(
        cluster_factory, store=store, degraded_ttl=DEGRADED_TTL
    )
    here, there = [await c.caches.create_cache("rows", ttl=600, backplane=True) for c in (one, two)]
    await there.set("other", 1)
    begun, go = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        begun.set()
        await go.wait()
        return "old"

    link.disconnect()
    for one_store in stores:
        one_store.disconnect()
    await eventually(lambda: there.troubles() != [])
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(there.wrap("row", load))
        await begun.wait()
        await here.delete("row")
        await asyncio.sleep(DEGRADED_TTL)
        go.set()

    assert await caller == "old"  # who had asked before
    assert await there.get("row") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("store", [True, False])
async def test_what_took_long_to_load_is_held_as_long_as_all_else(
    cluster_factory: ClusterFactory, store: bool
) -> None:
    url = f"memory://{cluster_factory.name}" if store else "memory://"
    [cluster] = await cluster_factory(cache={"url": url})
    cache = await cluster.caches.create_cache("rows", l1_ttl=0.2, ttl=60)
    go = asyncio.Event()

    async def load() -> int:
        await go.wait()
        return 1

    asyncio.get_running_loop().call_later(0.3, go.set)
    assert await cache.wrap("row", load) == 1
    assert await cache.get("row") == 1

    stats = cache.stats()
    assert (stats.loads, stats.local_hits, stats.store_hits) == (1, 1, 0)


@pytest.mark.asyncio
async def test_what_stood_in_when_the_store_was_lost_stands_in_for_no_later_load(
    cluster_factory: ClusterFactory,
) -> None:
    promise = 0.6
    [(one, *_), (two, stores, _)] = await two_in_hand(cluster_factory, promise_ttl=promise)
    options: Any = {"ttl": 600, "l1_ttl": 60, "backplane": False}
    here = await one.caches.create_cache("rows", **options)
    there = await two.caches.create_cache(
        "rows", **options, fail_safe=600, soft_timeout=0.05, hard_timeout=0.3
    )
    await there.set("row", "old", ttl=0.05)
    await asyncio.sleep(0.1)
    go = asyncio.Event()

    async def load() -> str:
        await go.wait()
        return "new"

    assert await there.wrap("row", load) == "old"
    stores[0].disconnect()
    await here.delete("row")
    await asyncio.sleep(promise / 3 + 0.1)

    for _ in range(2):
        with pytest.raises(CacheLoadTimeout):
            await there.wrap("row", load)
    go.set()
    assert await there.wrap("row", load) == "new"


@pytest.mark.asyncio
async def test_what_is_set_while_a_load_goes_on_outlives_the_loss_of_its_store(
    cluster_factory: ClusterFactory,
) -> None:
    promise = 0.6
    [_, (two, stores, _)] = await two_in_hand(cluster_factory, promise_ttl=promise)
    there = await two.caches.create_cache(
        "rows", ttl=600, l1_ttl=60, backplane=False, fail_safe=600, soft_timeout=0.05
    )
    await there.set("row", "old", ttl=0.05)
    await asyncio.sleep(0.1)
    go = asyncio.Event()

    async def load() -> str:
        await go.wait()
        return "new"

    assert await there.wrap("row", load) == "old"
    await there.set("row", "set", ttl=0.1)
    stores[0].disconnect()
    await asyncio.sleep(promise / 3 + 0.1)

    assert await there.wrap("row", fail) == "set"
    go.set()
