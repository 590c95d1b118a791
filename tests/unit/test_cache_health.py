"""What the health of an instance says of its caches and their stores."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.broadcast import Binding
from cluster_kit.errors import TopologyError
from cluster_kit.ports import AdapterContext, AdapterSpec, CacheFactory
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.pubsub import MemoryPubSub

REDIS = "redis_url (CLUSTER_KIT_REDIS_URL)"
MEMCACHED = "memcached_url (CLUSTER_KIT_MEMCACHED_URL)"


@pytest.mark.asyncio
async def test_caches_that_cannot_be_used_are_shown_until_they_can(
    cluster_factory: ClusterFactory,
) -> None:
    wrong = TopologyError("exchange 'x'", "type is 'fanout' on the broker, 'topic' expected")

    class Refuses(MemoryPubSub):
        async def bind(self, binding: Binding) -> None:
            if broken and binding.realm == "cache":
                raise wrong
            await super().bind(binding)

    broken = True
    [cluster] = await cluster_factory(
        start=False, cache={"url": f"memory://{cluster_factory.name}"}
    )
    cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=Refuses))
    await cluster.start()
    with pytest.raises(TopologyError):
        await cluster.caches.create_cache("rows", backplane=True)
    rows = cluster.caches.get_cache("rows")
    with pytest.raises(TopologyError):
        await rows.get("key")

    assert rows.troubles() == [f"cache 'rows' could not be used: {wrong}"]
    shown = cluster.health()
    assert shown["status"] == "degraded"
    assert shown["adapters"]["cache"]["detail"].endswith(f"could not be used: {wrong}")

    broken = False
    assert await rows.get("key") is None
    assert rows.troubles() == []
    assert cluster.health()["status"] == "ok"


class Named(MemoryCacheStore):
    """A store that another server than that of the caches stands for."""

    def __init__(self, url: str, context: AdapterContext) -> None:
        super().__init__(f"memory://{url.partition('//')[2].replace(':', '-')}", context)


def with_servers(store: CacheFactory = Named, **settings: Any) -> Cluster:
    cluster = Cluster("shop", settings=Settings(locks={"url": "memory://"}, **settings))
    schemes = ("redis", "memcached")
    cluster.registry.register(AdapterSpec(name="aiocache", schemes=schemes, cache=store))
    return cluster


def detail_of(cluster: Cluster) -> str:
    return cluster.health()["adapters"]["cache"]["detail"]


@pytest.mark.asyncio
async def test_a_store_that_is_not_used_says_nothing_beside_one_that_is() -> None:
    async with with_servers(redis_url="redis://own", cache={"url": "redis://chosen"}) as cluster:
        await cluster.cache.set("key", 1)
        assert detail_of(cluster) == "hub 'chosen'"

        await cluster.caches.create_cache("rows", store="redis")
        assert set(detail_of(cluster).split("; ")) == {"hub 'chosen'", "hub 'own'"}


@pytest.mark.asyncio
async def test_stores_that_are_not_used_yet_are_named_beside_caches_in_this_process() -> None:
    async with with_servers(
        memcached_url="memcached://away", cache={"url": "memory://"}
    ) as cluster:
        await cluster.cache.set("key", 1)
        assert detail_of(cluster) == f"{MEMCACHED}: not used yet"
    async with with_servers(memcached_url="memcached://a", redis_url="redis://b") as cluster:
        assert detail_of(cluster) == f"{REDIS}: not used yet; {MEMCACHED}: not used yet"


@pytest.mark.asyncio
async def test_a_store_that_is_lost_is_shown_beside_one_that_works() -> None:
    stores: list[MemoryCacheStore] = []

    class Kept(Named):
        def __init__(self, url: str, context: AdapterContext) -> None:
            super().__init__(url, context)
            stores.append(self)

    chosen = {"url": "redis://chosen"}
    async with with_servers(Kept, redis_url="redis://own", cache=chosen) as cluster:
        await cluster.caches.create_cache("rows", store="redis")
        for store in stores:
            store.disconnect()
            shown = cluster.health()["adapters"]["cache"]
            assert shown["status"] == "degraded"
            assert "not connected to hub" in shown["detail"]
            assert shown["detail"].count("hub '") == 2
            store.reconnect()
        assert cluster.health()["status"] == "ok"
