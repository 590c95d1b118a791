"""Whose load a caller joins who asks after an invalidation elsewhere: none from before it."""

from __future__ import annotations

import asyncio
import dataclasses
from itertools import product
from typing import Any

import pytest

from cluster_kit import Cache, loaded
from cluster_kit.ports import AdapterContext, CacheStore
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore


class Loads:
    """Each returns what is so when it begins, the first once it is let go."""

    def __init__(self) -> None:
        self.now = "old"
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        value = self.now
        if value == "old":
            self.begun.set()
            await self.go.wait()
        return value

    async def unkept(self) -> str:
        return loaded(await self(), keep=False)


async def two_on_a_store(
    factory: ClusterFactory, promise_ttl: float = 60, **options: Any
) -> tuple[Cache, Cache, MemoryCacheStore]:
    """Nothing but the store is between them; it is the first one's."""
    stores: list[MemoryCacheStore] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(MemoryCacheStore(url, context))
        return stores[-1]

    settings: Any = {"url": f"memory://{factory.name}", "promise_ttl": promise_ttl}
    caches: list[Cache] = []
    for cluster in await factory(2, start=False, cache=settings):
        cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
        await cluster.start()
        cache = await cluster.caches.create_cache("rows", backplane=False, **options)
        await cache.get("other")  # what the cache needs of its store is there
        caches.append(cache)
    return caches[0], caches[1], stores[0]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("unkept", "way"),
    [
        *product(("keep", "alone", "alone and unkept"), ("delete", "tag", "reset")),
        *product(("condition",), ("delete", "reset")),  # it takes no tags
    ],
)
async def test_who_asks_after_an_invalidation_elsewhere_joins_no_load_from_before(
    unkept: str, way: str, cluster_factory: ClusterFactory
) -> None:
    here, there, store = await two_on_a_store(cluster_factory, ttl=60)
    loads = Loads()

    async def ask() -> object:
        if unkept == "condition":
            kept = here.wrap_with_condition
            return await kept("row", loads, is_cacheable=lambda value: value != "old")
        return await here.wrap("row", loads if unkept == "alone" else loads.unkept, tags=["t"])

    if unkept.startswith("alone"):
        store.disconnect()
    loop = asyncio.get_running_loop()
    before = loop.create_task(ask())
    await loads.begun.wait()
    store.reconnect()
    loads.now = "new"
    if way == "delete":
        await there.delete("row")
    elif way == "tag":
        await there.invalidate_tags("t")
    else:
        await there.reset()
    after = loop.create_task(ask())
    await asyncio.sleep(0.01)
    loads.go.set()

    assert await before == "old"
    assert await after == "new"


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["delete", "tag"])
async def test_what_was_invalidated_elsewhere_stands_in_no_more_while_a_load_hangs(
    way: str, cluster_factory: ClusterFactory
) -> None:
    options = {"ttl": 0.05, "fail_safe": 600, "soft_timeout": 0.01}
    here, there, _ = await two_on_a_store(cluster_factory, promise_ttl=0.6, **options)
    await here.set("row", "old", tags=["t"])
    await asyncio.sleep(0.1)
    loads = Loads()
    assert await here.wrap("row", loads, tags=["t"]) == "old"
    await loads.begun.wait()
    await asyncio.sleep(1)  # longer than one promise counts
    assert await here.wrap("row", loads, tags=["t"]) == "old"  # it stands in as long as it may

    loads.now = "new"
    if way == "delete":
        await there.delete("row")
    else:
        await there.invalidate_tags("t")

    async def is_new() -> bool:
        try:
            async with asyncio.timeout(0.5):  # who waits as it goes waits for the load that hangs
                return await here.wrap("row", loads, tags=["t"]) == "new"
        except TimeoutError:
            return False

    await eventually(is_new)
    loads.go.set()
