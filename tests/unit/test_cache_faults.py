from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import pickle
from collections import Counter
from collections.abc import Sequence

import pytest

from cluster_kit import MISSING, Cache, Cluster
from cluster_kit.broadcast import Broadcast, Transport
from cluster_kit.cache.backplane import BEATS
from cluster_kit.cache.upkeep import LOOK
from cluster_kit.errors import CacheUnavailable
from cluster_kit.ports import AdapterContext, CacheFactory, CacheStore
from cluster_kit.testing.contracts.cache.pausing import Pauses, PausingStore
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.pubsub import MemoryPubSub

BEAT = 0.2


class Losing(MemoryPubSub):
    """Loses what arrives without a word, and confirms nothing, when it is told to."""

    losing = False
    lost = 0

    def __init__(self, url: str, context: AdapterContext) -> None:
        super().__init__(url, context)
        self.arrived: Counter[str] = Counter()
        self.confirming = asyncio.Event()
        self.confirming.set()

    async def publish(self, message: Broadcast, *, transport: Transport, timeout: float) -> None:
        await super().publish(message, transport=transport, timeout=timeout)
        await self.confirming.wait()

    def hand_over(self, message: Broadcast) -> None:
        if self.losing:
            self.lost += 1
        else:
            self.arrived[message.origin] += 1
            super().hand_over(message)


class Choosy(MemoryCacheStore):
    """Fails on one key, as on a name that it cannot write."""

    async def remove(
        self, keys: Sequence[str], *, once: bool = False, timeout: float
    ) -> list[bytes | None]:
        answers = await super().remove(keys, once=once, timeout=timeout)
        if any(key.endswith("bad") for key in keys):
            raise UnicodeEncodeError("utf-8", "", 0, 1, "surrogates not allowed")
        return answers


class OwnError(Exception):
    """Raised by loaders."""


async def fail() -> object:
    raise OwnError


async def two_instances(
    factory: ClusterFactory, store: CacheFactory = MemoryCacheStore, **cache: str
) -> list[tuple[Cluster, Losing]]:
    """By default without a store: what one holds goes by what it hears alone."""
    made: list[Losing] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        made.append(Losing(url, context))
        return made[-1]

    clusters = await factory(2, start=False, cache={"url": "memory://", "beat": BEAT, **cache})  # type: ignore[arg-type]
    for cluster in clusters:
        cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=make, cache=store))
        await cluster.start()
    return list(zip(clusters, made, strict=True))


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", ["the first", "a later one", "it and a beat"])
async def test_who_missed_the_last_invalidation_learns_of_it(
    lost: str, cluster_factory: ClusterFactory
) -> None:
    [(one, _), (two, link)] = await two_instances(cluster_factory)
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.set("row", "old")
    if lost != "the first":
        await there.set("marker", 1)
        await here.delete("marker")
        await eventually(lambda: there.get("marker"), lambda value: value is None)

    link.losing = True
    await here.delete("row")
    if lost == "it and a beat":
        await asyncio.sleep(BEAT + 2 * LOOK)
    link.losing = False

    assert there.stats().gaps == 0
    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert there.stats().gaps == 1


@pytest.mark.asyncio
async def test_who_missed_the_first_invalidation_learns_of_it_by_the_second(
    cluster_factory: ClusterFactory,
) -> None:
    [(one, _), (two, link)] = await two_instances(cluster_factory, beat="60")
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.mset({"row": "old", "other": "old"})
    await asyncio.sleep(0.1)

    link.losing = True
    await here.delete("row")
    link.losing = False
    await here.delete("other")

    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert there.stats().gaps == 1


@pytest.mark.asyncio
async def test_of_two_invalidations_at_once_the_second_does_not_pass_for_the_first(
    cluster_factory: ClusterFactory,
) -> None:
    [(one, own), (two, link)] = await two_instances(cluster_factory, beat="60")
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.mset({"row": "old", "other": "old"})
    await eventually(lambda: own.arrived[two.instance_id])

    own.confirming.clear()
    link.losing = True
    async with asyncio.TaskGroup() as group:
        group.create_task(here.delete("row"))
        await eventually(lambda: link.lost == 1)
        link.losing = False
        group.create_task(here.delete("other"))
        await eventually(lambda: link.arrived[one.instance_id] == 1)
        own.confirming.set()

    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert there.stats().gaps == 1


@pytest.mark.asyncio
async def test_beats_are_few_and_change_nothing(cluster_factory: ClusterFactory) -> None:
    [(one, _), (two, link)] = await two_instances(cluster_factory)
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.set("row", "kept")
    await here.delete("other")

    await eventually(lambda: link.arrived[one.instance_id] == 1 + BEATS)
    await asyncio.sleep(3 * LOOK)

    assert link.arrived[one.instance_id] == 1 + BEATS
    assert there.stats().gaps == 0
    assert await there.get("row") == "kept"


@pytest.mark.asyncio
@pytest.mark.parametrize("then", ["beats", "another change"])
async def test_who_came_after_a_change_missed_nothing_by_it(
    then: str, cluster_factory: ClusterFactory
) -> None:
    [(one, _), (two, link)] = await two_instances(cluster_factory)
    here = await one.caches.create_cache("rows", backplane=True)
    await here.delete("row")
    await asyncio.sleep(BEAT)  # longer than a beat is under way
    there = await two.caches.create_cache("rows", backplane=True)
    await there.set("row", "kept")

    before = link.arrived[one.instance_id]
    if then == "another change":
        await here.delete("other")
    await eventually(lambda: link.arrived[one.instance_id] > before)
    await asyncio.sleep(LOOK)

    assert there.stats().gaps == 0
    assert await there.get("row") == "kept"


@pytest.mark.asyncio
async def test_what_was_never_told_is_said_at_the_end(
    cluster_factory: ClusterFactory, caplog: pytest.LogCaptureFixture
) -> None:
    [(one, link), _] = await two_instances(cluster_factory)
    cache = await one.caches.create_cache("rows", backplane=True)
    link.disconnect()
    await eventually(lambda: cache.troubles() != [])
    with pytest.raises(CacheUnavailable):
        await cache.mdel("a", "b")

    with caplog.at_level(logging.ERROR):
        await one.stop()

    assert "cache 'rows': 2 invalidations were not told to all" in caplog.text


@pytest.mark.asyncio
async def test_a_value_invalidated_unheard_does_not_stand_in(
    cluster_factory: ClusterFactory,
) -> None:
    caches = [
        await c.caches.create_cache("rows", backplane=False, l1_ttl=0.1, ttl=0.1, fail_safe=60)
        for c in await cluster_factory(2)
    ]
    here, there = caches
    await here.set("row", "old")
    assert await there.get("row") == "old"
    await asyncio.sleep(0.15)
    assert await there.wrap("row", fail) == "old"

    await here.delete("row")
    await asyncio.sleep(0.15)  # over the bound of one who is not told

    with pytest.raises(OwnError):
        await there.wrap("row", fail)


@pytest.mark.asyncio
async def test_a_value_that_stands_in_is_held_no_longer_than_others(
    cluster_factory: ClusterFactory,
) -> None:
    here, there = await a_deaf_one_and_another(cluster_factory, l1_ttl=0.2, ttl=0.2)
    await here.set("row", "old")
    await asyncio.sleep(0.25)
    assert [await here.wrap("row", fail) for _ in range(2)] == ["old", "old"]
    assert here.stats().failures == 1

    await there.delete("row")

    async def load() -> str:
        return "new"

    await eventually(lambda: here.wrap("row", load), lambda value: value == "new", timeout=5)


@pytest.mark.asyncio
async def test_the_younger_of_two_old_values_stands_in(cluster_factory: ClusterFactory) -> None:
    here, there = await a_deaf_one_and_another(cluster_factory, l1_ttl=10, ttl=0.1)
    await here.set("row", "first")
    await there.set("row", "second")
    await asyncio.sleep(0.15)

    assert [await here.wrap("row", fail) for _ in range(2)] == ["second", "second"]


@pytest.mark.asyncio
async def test_what_is_invalidated_while_its_load_fails_stands_in_for_nobody_else(
    cluster_factory: ClusterFactory,
) -> None:
    here, there = await a_deaf_one_and_another(cluster_factory, l1_ttl=10, ttl=0.1)
    await here.set("row", "old", tags=["all"])
    await asyncio.sleep(0.15)

    async def overtaken() -> object:
        await there.invalidate_tags("all")
        raise OwnError

    assert await here.wrap("row", overtaken) == "old"  # for who had asked before
    assert await here.get("row") is None


async def a_deaf_one_and_another(
    factory: ClusterFactory, *, l1_ttl: float, ttl: float
) -> list[Cache]:
    """With one store."""
    clusters = await two_instances(factory, url=f"memory://{factory.name}")
    clusters[0][1].losing = True
    return [
        await c.caches.create_cache("rows", backplane=True, l1_ttl=l1_ttl, ttl=ttl, fail_safe=60)
        for c, _ in clusters
    ]


@pytest.mark.asyncio
async def test_a_value_the_store_has_no_more_does_not_stand_in(
    cluster_factory: ClusterFactory,
) -> None:
    hub = f"memory://{cluster_factory.name}"
    [(one, _), (two, link)] = await two_instances(cluster_factory, url=hub)
    here, there = [
        await c.caches.create_cache("rows", backplane=True, ttl=0.1, fail_safe=60)
        for c in (one, two)
    ]
    await there.set("row", "old")
    await asyncio.sleep(0.15)

    link.losing = True
    await here.delete("row")

    with pytest.raises(OwnError):
        await there.wrap("row", fail)


@pytest.mark.asyncio
@pytest.mark.parametrize("backplane", [True, False])
async def test_without_a_word_of_the_store_a_value_stands_in_no_longer_than_it_is_held(
    backplane: bool, cluster_factory: ClusterFactory
) -> None:
    stores: list[MemoryCacheStore] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(MemoryCacheStore(url, context))
        return stores[-1]

    [cluster] = await cluster_factory(start=False)
    cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
    await cluster.start()
    options = {"ttl": 0.1, "fail_safe": 60, "backplane": backplane}
    brief = await cluster.caches.create_cache("brief", l1_ttl=0.1, **options)  # type: ignore[arg-type]
    long = await cluster.caches.create_cache("long", l1_ttl=60, **options)  # type: ignore[arg-type]
    for cache in (brief, long):
        await cache.set("row", "old")
    await asyncio.sleep(0.15)
    stores[0].disconnect()

    assert await long.wrap("row", fail) == "old"
    with pytest.raises(OwnError):
        await brief.wrap("row", fail)


@pytest.mark.asyncio
async def test_what_the_store_was_seen_not_to_have_never_stands_in(
    cluster_factory: ClusterFactory,
) -> None:
    stores: list[MemoryCacheStore] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(MemoryCacheStore(url, context))
        return stores[-1]

    hub = f"memory://{cluster_factory.name}"
    [(one, _), (two, link)] = await two_instances(cluster_factory, make, url=hub)
    here, there = [
        await c.caches.create_cache("rows", backplane=True, ttl=0.1, fail_safe=60)
        for c in (one, two)
    ]
    link.losing = True
    for key in ("get", "wrap"):
        await here.set(key, "old")
        assert await there.get(key) == "old"
    await asyncio.sleep(0.15)
    await here.mdel("get", "wrap")

    assert await there.get("get") is None
    with pytest.raises(OwnError):
        await there.wrap("wrap", fail)
    for store in stores:
        store.disconnect()

    for key in ("get", "wrap"):
        with pytest.raises(OwnError):
            await there.wrap(key, fail)


@pytest.mark.asyncio
async def test_what_is_invalidated_again_while_it_is_told_stays_owed(
    cluster_factory: ClusterFactory,
) -> None:
    stores: list[MemoryCacheStore] = []
    pauses = Pauses()

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(MemoryCacheStore(url, context))
        return PausingStore(stores[-1], pauses)

    [cluster] = await cluster_factory(start=False)
    cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", backplane=False)
    await cache.set("row", "old")
    stores[0].disconnect()
    with pytest.raises(CacheUnavailable):
        await cache.delete("row")
    pauses.arm(0, after=True)
    stores[0].reconnect()
    await pauses.reached.wait()  # it was told, and does not know yet
    stores[0].disconnect()
    with pytest.raises(CacheUnavailable):
        await cache.delete("row")
    pauses.release()
    await asyncio.sleep(2 * LOOK)

    assert cache.stats().unsent == 1
    stores[0].reconnect()
    await eventually(lambda: cache.stats().unsent == 0)


@pytest.mark.asyncio
async def test_what_can_never_be_told_takes_all_values_and_stops_nothing_else(
    cluster_factory: ClusterFactory, caplog: pytest.LogCaptureFixture
) -> None:
    stores: list[Choosy] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(Choosy(url, context))
        return stores[-1]

    [cluster] = await cluster_factory(start=False)
    cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", backplane=False)
    await cache.mset({"bad": 1, "good": 2, "other": 3})
    stores[0].disconnect()
    for change in (cache.invalidate_tags("t"), cache.mdel("bad", "good")):
        with pytest.raises(CacheUnavailable):
            await change
    stores[0].reconnect()
    await eventually(lambda: cache.stats().unsent == 0)

    assert await cache.mget("bad", "good", "other") == [None] * 3
    assert "an invalidation cannot be told: Change(keys=('bad', 'good')" in caplog.text


def test_there_is_one_missing() -> None:
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert copy.deepcopy({"a": MISSING})["a"] is MISSING


@pytest.mark.asyncio
async def test_those_whose_loads_were_overtaken_do_not_all_load_at_once(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    cache = cluster.cache
    gates: list[asyncio.Event] = []
    loads = 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        gates.append(gate := asyncio.Event())
        await gate.wait()
        return loads

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(cache.wrap("row", load))
        await eventually(lambda: len(gates) == 1)
        await cache.delete("row")
        gates[0].set()
        await eventually(lambda: len(gates) == 2)
        await cache.delete("row")
        gates[1].set()
        await asyncio.sleep(0.05)
        for gate in gates:
            gate.set()

    assert loads == 2
