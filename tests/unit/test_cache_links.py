"""What tells the store and other instances, while one of them is away or refuses."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cluster_kit import Cache, Cluster
from cluster_kit.broadcast import Binding, Broadcast, Transport
from cluster_kit.cache import guard
from cluster_kit.cache.changes import MOST_UNSENT
from cluster_kit.cache.guard import FAILURES
from cluster_kit.errors import CacheUnavailable, ConnectError, PublishRefused
from cluster_kit.ports import AdapterContext, CacheStore, Health
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.pubsub import MemoryPubSub


async def two_in_hand(
    factory: ClusterFactory, *, store: bool = True, degraded_ttl: float = 2, promise_ttl: float = 10
) -> list[tuple[Cluster, list[MemoryCacheStore], MemoryPubSub]]:
    """Each with what connects it to the store, if there is one, and to the other."""
    made: list[tuple[Cluster, list[MemoryCacheStore], MemoryPubSub]] = []
    url = f"memory://{factory.name}" if store else "memory://"
    settings: Any = {"url": url, "degraded_ttl": degraded_ttl, "promise_ttl": promise_ttl}
    clusters = await factory(2, start=False, cache=settings)
    for cluster in clusters:
        stores: list[MemoryCacheStore] = []
        links: list[MemoryPubSub] = []

        def keep(
            url: str, context: AdapterContext, stores: list[MemoryCacheStore] = stores
        ) -> CacheStore:
            stores.append(MemoryCacheStore(url, context))
            return stores[-1]

        def link(
            url: str, context: AdapterContext, links: list[MemoryPubSub] = links
        ) -> MemoryPubSub:
            links.append(MemoryPubSub(url, context))
            return links[-1]

        cluster.registry.register(dataclasses.replace(ADAPTER, cache=keep, pubsub=link))
        await cluster.start()
        made.append((cluster, stores, links[0]))
    return made


@pytest.mark.asyncio
async def test_what_is_told_late_says_that_the_store_does_not_know_yet(
    cluster_factory: ClusterFactory,
) -> None:
    [(one, [*_], link), (two, [*_], _)] = instances = await two_in_hand(cluster_factory)
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await here.set("row", "old")
    assert await there.get("row") == "old"

    instances[0][1][0].disconnect()
    link.disconnect()
    await eventually(lambda: here.troubles() != [])
    with pytest.raises(CacheUnavailable):
        await here.delete("row")
    link.reconnect()

    await eventually(lambda: there.get("row"), lambda value: value is None)
    await eventually(lambda: there.stats().unsent == 0)  # it could tell the store
    assert await there.get("row") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("store", [True, False])
async def test_more_than_can_be_kept_for_later_takes_all_values_and_no_counter(
    cluster_factory: ClusterFactory,
    store: bool,
) -> None:
    instances = await two_in_hand(cluster_factory, store=store)
    here, there = [await c.caches.create_cache("rows", backplane=True) for c, *_ in instances]
    assert [await cache.incr("hits") for cache in (here, there, there)] == [1, 1 + store, 2 + store]
    await there.set("other", 1)
    for _, stores, link in instances[:1]:
        link.disconnect()
        for one in stores:
            one.disconnect()
    await eventually(lambda: here.troubles() != [])
    with pytest.raises(CacheUnavailable):
        await here.mdel(*(f"k{number}" for number in range(MOST_UNSENT + 1)))
    for _, stores, link in instances[:1]:
        link.reconnect()
        for one in stores:
            one.reconnect()
    await eventually(lambda: there.get("other"), lambda value: value is None)
    await eventually(lambda: here.stats().unsent == 0)

    assert await there.incr("hits") == 3 + store
    await there.reset()
    assert await there.count("hits") == 0


class Forbidden(MemoryPubSub):
    """May hear all, and send nothing."""

    asked = 0

    async def publish(self, message: Broadcast, *, transport: Transport, timeout: float) -> None:
        self.asked += 1
        raise PublishRefused(message.id, "no rights to write")


@pytest.mark.asyncio
async def test_what_nobody_will_take_stays_unsent_and_is_shown_with_the_reason(
    cluster_factory: ClusterFactory,
) -> None:
    links: list[Forbidden] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        links.append(Forbidden(url, context))
        return links[-1]

    [cluster] = await cluster_factory(start=False, cache={"url": "memory://"})
    cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=make))
    await cluster.start()
    assert "cache" not in cluster.health()["adapters"]
    cache = await cluster.caches.create_cache("rows", backplane=True)

    with pytest.raises(CacheUnavailable, match="no rights to write") as caught:
        await cache.delete("row")

    assert isinstance(caught.value.__cause__, PublishRefused)
    seen = set[int]()
    while links[0].asked < 5:
        seen.add(cache.stats().unsent)
        await asyncio.sleep(0)
    assert seen == {1}
    shown = cluster.health()["adapters"]["cache"]
    assert shown["status"] == cluster.health()["status"] == "degraded"
    assert "1 invalidations wait to be told" in shown["detail"]
    assert cluster.health()["adapters"]["cache"]["since"] == shown["since"]


@pytest.mark.asyncio
@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        pytest.param(1_000, 1, id="several messages"),
        pytest.param(150, 0, id="one name is too large"),
    ],
)
async def test_what_is_too_large_for_one_message_is_told_in_smaller_ones(
    store: bool, limit: int, kept: int, cluster_factory: ClusterFactory
) -> None:
    here, there = [
        await cluster.caches.create_cache("rows", backplane=True, l1_ttl=60)
        for cluster in await cluster_factory(
            2,
            cache={"url": f"memory://{cluster_factory.name}" if store else "memory://"},
            pubsub={"max_payload_bytes": limit},
        )
    ]
    names = {f"{number:03}".ljust(100, "x"): "old" for number in range(40)}
    if store:
        await here.mset({**names, "other": "old"})
        assert await there.mget(*names, "other") == ["old"] * 41
    else:
        await there.mset({**names, "other": "old"})

    assert await here.mdel(*names) == (40 if store else 0)

    assert here.stats().unsent == 0
    await eventually(lambda: there.mget(*names), lambda values: set(values) == {None})
    assert there.stats().entries == kept


class Late(MemoryPubSub):
    """Cannot receive at first."""

    refused = 0

    async def bind(self, binding: Binding) -> None:
        if self.refused < 2:
            self.refused += 1
            raise ConnectError("memory://", "not yet")
        await super().bind(binding)


@pytest.mark.asyncio
async def test_a_cache_that_hears_late_is_as_quick_as_others_from_then_on(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(start=False, cache={"url": "memory://"})
    cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=Late))
    told: list[object] = []

    def hear(event: str, fields: Mapping[str, object]) -> None:
        if event == "cache.linked":
            told.append(fields["live"])

    cluster.telemetry.subscribe(hear)
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", backplane=True)
    assert cache.troubles() != []

    await eventually(lambda: cache.troubles() == [])
    await cache.set("row", 1)

    assert told == [True]
    before = cache._quick_hits
    assert await cache.get("row") == 1
    assert cache._quick_hits == before + 1


class Stuck(MemoryPubSub):
    """Answers no wish to receive before it is `free`."""

    def __init__(self, url: str, context: AdapterContext) -> None:
        super().__init__(url, context)
        self.free = asyncio.Event()

    async def bind(self, binding: Binding) -> None:
        await self.free.wait()
        await super().bind(binding)


@pytest.mark.asyncio
async def test_the_first_use_of_a_cache_does_not_wait_for_a_broker_that_does_not_answer(
    cluster_factory: ClusterFactory,
) -> None:
    links: list[Stuck] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        links.append(Stuck(url, context))
        return links[-1]

    settings: Any = {"url": f"memory://{cluster_factory.name}", "publish_timeout": 0.1}
    one, two = await cluster_factory(2, start=False, cache=settings)
    two.registry.register(dataclasses.replace(ADAPTER, pubsub=make))
    await one.start()
    await two.start()
    here = await one.caches.create_cache("rows", backplane=True)
    await here.set("row", "old")

    async with asyncio.timeout(5):
        there = await two.caches.create_cache("rows", backplane=True, l1_ttl=60)
        assert await there.get("row") == "old"
    assert there.troubles() != []
    links[0].free.set()
    await eventually(lambda: there.troubles() == [])

    assert there.stats().gaps == 1
    assert await there.get("row") == "old"
    await here.delete("row")
    await eventually(lambda: there.get("row"), lambda value: value is None)


@pytest.mark.asyncio
async def test_a_store_that_is_back_is_told_although_the_broker_does_not_answer(
    cluster_factory: ClusterFactory,
) -> None:
    stores: list[MemoryCacheStore] = []

    def make(url: str, context: AdapterContext) -> MemoryCacheStore:
        stores.append(MemoryCacheStore(url, context))
        return stores[-1]

    settings: Any = {"url": f"memory://{cluster_factory.name}", "publish_timeout": 0.1}
    one, two = await cluster_factory(2, start=False, cache=settings)
    one.registry.register(dataclasses.replace(ADAPTER, pubsub=Stuck, cache=make))
    await one.start()
    await two.start()
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.set("row", "old")

    stores[0].disconnect()
    with pytest.raises(CacheUnavailable, match="they will be"):
        await here.delete("row")
    stores[0].reconnect()

    await eventually(there.keys, lambda keys: keys == [])
    assert here.troubles() != []


class Unwell(MemoryPubSub):
    """Has a trouble that is none of the caches'."""

    def health(self) -> Health:
        return Health(status="degraded", detail="a channel of the application", since=1.0)


@pytest.mark.asyncio
async def test_what_is_wrong_with_other_channels_silences_no_cache(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await cluster_factory(2, start=False, cache={"url": "memory://"})
    one.registry.register(dataclasses.replace(ADAPTER, pubsub=Unwell))
    await one.start()
    await two.start()
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.set("row", "old")

    await here.delete("row")

    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert here.troubles() == []


class Deaf(MemoryPubSub):
    """Gets late what others send, and sends."""

    def linked_since(self, binding: Binding) -> float | None:
        return None


@pytest.mark.asyncio
async def test_who_does_not_hear_others_tells_them_all_the_same(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await cluster_factory(2, start=False, cache={"url": "memory://"})
    one.registry.register(dataclasses.replace(ADAPTER, pubsub=Deaf))
    await one.start()
    await two.start()
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.set("row", "old")

    await here.delete("row")

    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert here.stats().unsent == 0


@pytest.mark.asyncio
async def test_a_store_that_is_back_is_well_although_nobody_asks_it(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REST", 0.1)
    [(one, [*_], _), _] = instances = await two_in_hand(cluster_factory)
    store = instances[0][1]
    cache = await one.caches.create_cache("rows", backplane=True)
    await cache.get("row")
    store[0].disconnect()
    await cache.get("row")
    assert cache.troubles() == ["cache 'rows': its store does not answer"]

    store[0].reconnect()

    await eventually(lambda: cache.troubles() == [])
    assert cache.stats().unavailable == 1
    assert one.health()["adapters"]["cache"]["status"] == "ok"


class Slow(MemoryPubSub):
    """Hands over nothing of what arrives while it is `slow`, as a line with much before it."""

    slow = False

    def hand_over(self, message: Broadcast) -> None:
        if not self.slow:
            super().hand_over(message)


@pytest.mark.asyncio
@pytest.mark.parametrize("transport", ["ephemeral", "sticky", "stream"])
@pytest.mark.parametrize("at_once", [False, True], ids=["later", "between two looks"])
async def test_who_is_back_believes_nothing_it_held_before_what_it_missed_is_there(
    transport: str, at_once: bool, cluster_factory: ClusterFactory
) -> None:
    links: list[Slow] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        links.append(Slow(url, context))
        return links[-1]

    caches: list[Cache] = []
    settings: Any = {"url": "memory://", "transport": transport}
    for cluster in await cluster_factory(2, start=False, cache=settings):
        cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=make))
        await cluster.start()
        caches.append(await cluster.caches.create_cache("rows", backplane=True))
    here, there = caches
    await there.set("row", "old")

    links[1].disconnect()
    if not at_once:
        await eventually(lambda: there.troubles() != [])
    await here.delete("row")
    links[1].slow = True
    links[1].reconnect()
    await eventually(lambda: there.stats().gaps == 1 and there.troubles() == [])

    assert await there.get("row") is None
    assert there.stats().gaps == 1


class Full(MemoryCacheStore):
    """Stores nothing more, but reads and removes."""

    full = False

    def refuse(self) -> None:
        if self.full:
            raise CacheUnavailable("", "no memory left", refused=True)

    async def write(self, *args: Any, **kwargs: Any) -> list[bytes | None]:
        self.refuse()
        return await super().write(*args, **kwargs)

    async def swap(self, *args: Any, **kwargs: Any) -> tuple[bool, list[bytes | None]]:
        self.refuse()
        return await super().swap(*args, **kwargs)

    async def renew(self, *args: Any, **kwargs: Any) -> list[bytes | None]:
        self.refuse()
        return await super().renew(*args, **kwargs)


@pytest.mark.asyncio
async def test_a_store_that_is_full_is_read_and_told_what_is_invalidated(
    cluster_factory: ClusterFactory,
) -> None:
    stores: list[Full] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(Full(url, context))
        return stores[-1]

    [cluster] = await cluster_factory(start=False)
    cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", backplane=False)
    await cache.mset({"a": 1, "b": 2})
    await cache.set("c", 3, tags=["t"])
    stores[0].full = True
    for _ in range(2 * FAILURES):
        with pytest.raises(CacheUnavailable, match="no memory left"):
            await cache.set("new", 1)

    assert await cache.mget("a", "c") == [1, 3]
    assert cache.troubles() == ["cache 'rows': its store refuses: no memory left"]
    await cache.invalidate_tags("t")
    assert await cache.mget("a", "c") == [1, None]
    await cache.reset()
    assert await cache.get("a") is None

    stores[0].full = False
    await cache.set("new", 1)
    assert await cache.mget("a", "b", "c", "new") == [None, None, None, 1]
    assert cache.troubles() == []


class Choosy(MemoryCacheStore):
    """Does not do what it `refuses`."""

    refuses: frozenset[str] = frozenset()

    def refuse(self, what: str) -> None:
        if what in self.refuses:
            raise CacheUnavailable("", f"no right to {what}", refused=True)

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        self.refuse("read")
        return await super().read(keys, timeout=timeout)

    async def swap(self, *args: Any, **kwargs: Any) -> tuple[bool, list[bytes | None]]:
        self.refuse("swap")
        return await super().swap(*args, **kwargs)

    async def increment(self, *args: Any, **kwargs: Any) -> tuple[int, list[bytes | None]]:
        self.refuse("increment")
        return await super().increment(*args, **kwargs)


async def choosy(factory: ClusterFactory) -> tuple[Choosy, Cache]:
    stores: list[Choosy] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(Choosy(url, context))
        return stores[-1]

    [cluster] = await factory(start=False)
    cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", backplane=False)
    await cache.set("row", 1)
    return stores[0], cache


@pytest.mark.asyncio
async def test_what_was_refused_and_is_done_is_a_trouble_no_more(
    cluster_factory: ClusterFactory,
) -> None:
    store, cache = await choosy(cluster_factory)
    store.refuses = frozenset({"increment", "swap"})
    with pytest.raises(CacheUnavailable, match="no right to increment"):
        await cache.incr("hits")
    assert await cache.get("row") == 1
    assert cache.troubles() == ["cache 'rows': its store refuses: no right to increment"]

    store.refuses = frozenset({"swap"})
    assert await cache.incr("hits") == 1
    assert cache.troubles() == []

    assert await cache.wrap("new", lambda: 1) == 1
    assert cache.troubles() == ["cache 'rows': its store refuses: no right to swap"]
    store.refuses = frozenset()
    assert await cache.wrap("new", lambda: 2) in {1, 2}
    await cache.wrap("other", lambda: 1)
    assert cache.troubles() == []


@pytest.mark.asyncio
async def test_a_store_that_refused_to_be_read_is_looked_for(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REST", 0.1)
    store, cache = await choosy(cluster_factory)
    store.refuses = frozenset({"read"})
    assert await cache.get("row") is None
    await asyncio.sleep(0.5)
    assert cache.troubles() == ["cache 'rows': its store refuses: no right to read"]

    store.refuses = frozenset()

    await eventually(lambda: cache.troubles() == [])


_TIMEOUT = 0.02


class Resting(MemoryCacheStore):
    """Takes what invalidates, and nothing else, while it is `ill`."""

    ill = False
    asked = 0

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        if self.ill:
            self.asked += 1
            raise CacheUnavailable("", "overloaded")
        return await super().read(keys, timeout=timeout)


async def fail_until_left_alone(cache: Cache, store: Resting) -> None:
    """Those at once are one failure."""
    store.ill = True
    for number in range(1, FAILURES):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.get("row")) for _ in range(2 * FAILURES)]
        assert {task.result() for task in tasks} == {None}
        assert store.asked == number * 2 * FAILURES
        await asyncio.sleep(_TIMEOUT)
    asked = store.asked
    for _ in range(3):
        assert await cache.get("row") is None
    assert store.asked == asked + 1


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["delete", "tag", "reset"])
async def test_a_store_that_is_left_alone_is_told_what_is_invalidated(
    way: str, cluster_factory: ClusterFactory
) -> None:
    stores: list[Resting] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(Resting(url, context))
        return stores[-1]

    [cluster] = await cluster_factory(start=False, cache={"timeout": _TIMEOUT})
    cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", backplane=False)
    await cache.set("row", "old", tags=["t"])
    await cache.set("other", 1)
    await fail_until_left_alone(cache, stores[0])

    if way == "delete":
        await cache.delete("row")
    elif way == "tag":
        await cache.invalidate_tags("t")
    else:
        with pytest.raises(CacheUnavailable):  # of its counters more is asked
            await cache.reset()

    stores[0].ill = False

    async def can_be_set() -> bool:
        try:
            await cache.set("other", 1)
        except CacheUnavailable:
            return False
        return True

    await eventually(can_be_set)
    assert await cache.get("row") is None
