"""Resets of counters that the store was not told of: carried out once, whoever owes them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from cluster_kit import Cache
from cluster_kit.cache.changes import MOST_RESETS, Change, Unsent, from_message
from cluster_kit.cache.counters import LocalCounters
from cluster_kit.cache.guard import FAILURES
from cluster_kit.cache.names import Names
from cluster_kit.clock import SystemClock
from cluster_kit.errors import CacheUnavailable
from cluster_kit.names import new_id
from cluster_kit.ports import AdapterContext, CacheStore
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.pubsub import MemoryPubSub


class Moody(MemoryCacheStore):
    """Fails the calls that are named here, before it has carried them out, or after."""

    def __init__(self, url: str, context: AdapterContext) -> None:
        super().__init__(url, context)
        self.fails: set[str] = set()
        self.loses: set[str] = set()
        self.refuses: set[str] = set()
        self.asked: list[str] = []
        self.before_swap: asyncio.Event | None = None

    def _before(self, name: str) -> None:
        self.asked.append(name)
        if name in self.refuses:
            raise CacheUnavailable("", "no memory left", refused=True)
        if name in self.fails:
            raise CacheUnavailable("", "not now")

    def _after(self, name: str) -> None:
        if name in self.loses:
            raise CacheUnavailable("", "the answer was lost")

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        self._before("read")
        return await super().read(keys, timeout=timeout)

    async def swap(self, *args: Any, **kwargs: Any) -> tuple[bool, list[bytes | None]]:
        self._before("swap")
        if self.before_swap is not None:
            await self.before_swap.wait()
        answer = await super().swap(*args, **kwargs)
        self._after("swap")
        return answer

    async def renew(self, *args: Any, **kwargs: Any) -> list[bytes | None]:
        self._before("renew")
        answer = await super().renew(*args, **kwargs)
        self._after("renew")
        return answer


class Instance:
    """A cache, with what connects it to the store and to the others."""

    def __init__(self, cache: Cache, store: Moody, link: MemoryPubSub) -> None:
        self.cache = cache
        self.store = store
        self.link = link

    @property
    def owed(self) -> Mapping[str, int]:
        assert self.cache._engine is not None
        return self.cache._engine.shelf.owed.counters

    async def owes(self, number: int) -> None:
        await eventually(lambda: len(self.owed) == number)

    async def has_told(self) -> None:
        await eventually(lambda: self.cache.stats().unsent == 0)


async def instances(factory: ClusterFactory, number: int = 2) -> list[Instance]:
    """All of them have counted to five in the store they share."""
    made: list[Instance] = []
    url = f"memory://{factory.name}"
    for cluster in await factory(number, start=False, cache={"url": url}):
        stores: list[Moody] = []
        links: list[MemoryPubSub] = []

        def keep(url: str, context: AdapterContext, stores: list[Moody] = stores) -> CacheStore:
            stores.append(Moody(url, context))
            return stores[-1]

        def link(
            url: str, context: AdapterContext, links: list[MemoryPubSub] = links
        ) -> MemoryPubSub:
            links.append(MemoryPubSub(url, context))
            return links[-1]

        cluster.registry.register(dataclasses.replace(ADAPTER, cache=keep, pubsub=link))
        await cluster.start()
        cache = await cluster.caches.create_cache("rows", backplane=number > 1)
        made.append(Instance(cache, stores[0], links[0]))
    for each in made:
        await each.cache.count("hits")
    await made[0].cache.incr("hits", 5)
    return made


async def reset_while_away(*all_of_them: Instance) -> None:
    """The first asks for it, and all hear of it."""
    for each in all_of_them:
        each.store.disconnect()
    await all_of_them[0].cache.reset()
    for each in all_of_them:
        await each.owes(1)


@pytest.mark.asyncio
async def test_who_owes_a_reset_tells_it_before_it_counts(cluster_factory: ClusterFactory) -> None:
    one, two = await instances(cluster_factory)
    await reset_while_away(one, two)
    for each in (one, two):
        each.store.reconnect()

    assert [await each.cache.incr("hits") for each in (one, two)] == [1, 2]
    for each in (one, two):
        await each.has_told()
    assert [await each.cache.count("hits") for each in (one, two)] == [2, 2]


@pytest.mark.asyncio
async def test_who_cannot_tell_it_does_not_count(cluster_factory: ClusterFactory) -> None:
    [one] = await instances(cluster_factory, 1)
    one.store.disconnect()
    with pytest.raises(CacheUnavailable):
        await one.cache.reset()
    one.store.fails = {"renew", "swap"}
    one.store.reconnect()

    for call in (one.cache.incr, one.cache.count, one.cache.clear_count):
        with pytest.raises(CacheUnavailable, match="not now"):
            await call("hits")
    one.store.fails = set()
    assert await one.cache.incr("hits") == 1
    await one.has_told()
    assert await one.cache.clear_count("hits") == 1


@pytest.mark.asyncio
async def test_many_who_count_at_once_begin_anew_once(cluster_factory: ClusterFactory) -> None:
    one, two = await instances(cluster_factory)
    await reset_while_away(one, two)
    for each in (one, two):
        each.store.reconnect()

    async with asyncio.TaskGroup() as group:
        for each in (one, two) * 20:
            group.create_task(each.cache.incr("hits"))

    for each in (one, two):
        await each.has_told()
    assert await one.cache.count("hits") == 40


@pytest.mark.asyncio
@pytest.mark.parametrize("is_lost", [False, True], ids=["kept", "lost"])
async def test_what_was_counted_since_it_was_told_stays(
    is_lost: bool, cluster_factory: ClusterFactory
) -> None:
    one, two = await instances(cluster_factory)
    await reset_while_away(one, two)
    two.link.disconnect()  # so that it does not hear who has told it
    one.store.reconnect()
    if is_lost:  # by a store that lost everything, say
        await one.store.remove([Names(cluster_factory.name, "rows").counted], timeout=1)
    await eventually(lambda: not one.owed)
    assert await one.cache.incr("hits", 3) == 3

    two.store.reconnect()
    await eventually(lambda: not two.owed)
    assert await two.cache.incr("hits") == 4
    two.link.reconnect()
    await two.has_told()
    assert [await each.cache.count("hits") for each in (one, two)] == [4, 4]


@pytest.mark.asyncio
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_was_done_is_not_done_again_when_its_answer_was_lost(
    at_once: bool, cluster_factory: ClusterFactory
) -> None:
    one, two = await instances(cluster_factory)
    if not at_once:
        await reset_while_away(one, two)
        two.link.disconnect()
        one.store.fails, one.store.loses = {"renew"}, {"swap"}  # nobody else tells it
        one.store.reconnect()
        with pytest.raises(CacheUnavailable):
            await one.cache.count("hits")
        two.store.reconnect()
    else:
        two.store.fails, one.store.loses = {"read"}, {"swap"}
        await one.cache.reset()
        one.store.fails = {"read"}
        await eventually(lambda: two.owed)
        two.store.fails = set()

    assert await two.cache.incr("hits", 3) == 3
    one.store.fails = one.store.loses = set()
    two.link.reconnect()
    for each in (one, two):
        await each.has_told()
    assert [await each.cache.count("hits") for each in (one, two)] == [3, 3]


@pytest.mark.asyncio
async def test_resets_of_several_are_carried_out_together(cluster_factory: ClusterFactory) -> None:
    one, two = await instances(cluster_factory)
    for each in (one, two):
        each.store.disconnect()
    async with asyncio.TaskGroup() as group:
        for each in (one, two):
            group.create_task(each.cache.reset())
    for each in (one, two):
        await each.owes(2)
    two.link.disconnect()
    one.store.reconnect()
    await eventually(lambda: not one.owed)
    assert await one.cache.incr("hits", 3) == 3

    two.store.reconnect()
    assert await two.cache.incr("hits") == 4
    two.link.reconnect()
    await two.has_told()
    assert await one.cache.count("hits") == 4


@pytest.mark.asyncio
async def test_a_reset_that_the_store_knows_stands_for_those_before(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await instances(cluster_factory)
    await reset_while_away(one, two)
    one.store.reconnect()
    await one.cache.reset()

    assert not one.owed
    await eventually(lambda: not two.owed)  # it has heard of it
    assert await one.cache.incr("hits", 3) == 3
    two.store.reconnect()
    await two.has_told()
    assert await two.cache.count("hits") == 3


@pytest.mark.asyncio
async def test_a_reset_after_one_that_was_told_begins_anew(cluster_factory: ClusterFactory) -> None:
    one, two = await instances(cluster_factory)
    for number in range(3):
        await reset_while_away(one, two)
        for each in (one, two):
            each.store.reconnect()
        assert await two.cache.incr("hits", 7 + number) == 7 + number
        for each in (one, two):
            await each.has_told()
    await one.cache.reset()
    assert [await each.cache.count("hits") for each in (one, two)] == [0, 0]


@pytest.mark.asyncio
@pytest.mark.parametrize("refuses", [{"swap"}, {"swap", "renew"}])
async def test_a_full_store_is_told_too(refuses: set[str], cluster_factory: ClusterFactory) -> None:
    [one] = await instances(cluster_factory, 1)
    one.store.disconnect()
    with pytest.raises(CacheUnavailable):
        await one.cache.reset()
    one.store.refuses = refuses
    one.store.reconnect()

    await one.has_told()
    one.store.refuses = set()
    assert await one.cache.incr("hits") == 1


@pytest.mark.asyncio
async def test_a_store_that_is_left_alone_is_told_by_and_by(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(start=False, cache={"url": "memory://x", "timeout": 0.01})
    stores: list[Moody] = []

    def keep(url: str, context: AdapterContext) -> CacheStore:
        stores.append(Moody(url, context))
        return stores[-1]

    cluster.registry.register(dataclasses.replace(ADAPTER, cache=keep))
    await cluster.start()
    cache, [store] = await cluster.caches.create_cache("rows", backplane=False), stores
    await cache.incr("hits", 5)
    store.fails = {"read", "renew", "swap"}
    for _ in range(FAILURES):
        with suppress(CacheUnavailable):
            await cache.reset()
        await asyncio.sleep(0.02)
    store.asked.clear()

    with pytest.raises(CacheUnavailable, match="lately: not now"):
        await cache.incr("hits")
    assert store.asked == []
    store.fails = set()
    await eventually(lambda: cache.stats().unsent == 0)
    assert await cache.incr("hits") == 1


@pytest.mark.asyncio
async def test_a_reset_that_is_told_late_ends_nothing_that_was_counted_since(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await instances(cluster_factory)
    await reset_while_away(one, two)
    one.store.reconnect()
    one.store.before_swap = asyncio.Event()  # it is paid, and hangs
    await eventually(lambda: "swap" in one.store.asked)
    two.store.reconnect()
    await two.cache.reset()
    assert await two.cache.incr("hits", 3) == 3

    one.store.before_swap.set()
    await one.has_told()
    assert await two.cache.count("hits") == 3


@pytest.mark.asyncio
async def test_counters_that_nothing_stood_on_are_reset_once_too(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await instances(cluster_factory)
    counted = Names(cluster_factory.name, "rows").counted
    await one.store.remove([counted], timeout=1)
    one.store.loses = {"swap"}
    two.link.disconnect()
    await one.cache.reset()
    one.store.fails = {"read"}
    assert await two.cache.incr("hits", 3) == 3

    one.store.loses = one.store.fails = set()
    await eventually(lambda: not one.owed)
    assert await two.cache.count("hits") == 3
    two.link.reconnect()


@pytest.mark.asyncio
async def test_more_resets_than_are_known_are_carried_out_by_the_last(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await instances(cluster_factory)
    await reset_while_away(one, two)
    for _ in range(MOST_RESETS):
        await one.cache.reset()
    async with asyncio.TaskGroup() as group:  # and at last two that pass each other
        for each in (one, two):
            group.create_task(each.cache.reset())
    for each in (one, two):
        await each.owes(MOST_RESETS)
    assert {*one.owed} == {*two.owed}
    two.link.disconnect()
    one.store.reconnect()
    assert await one.cache.incr("hits", 3) == 3

    two.store.reconnect()
    assert await two.cache.incr("hits") == 4
    two.link.reconnect()
    await two.has_told()
    assert await one.cache.count("hits") == 4


def test_ids_of_resets_are_told_together_up_to_a_number() -> None:
    ids = tuple(new_id() for _ in range(MOST_RESETS + 1))
    unsent = Unsent()
    for reset in ids:
        unsent.add(Change(everything=True, counters=(reset,)))

    [change] = unsent.parts()
    assert change.counters == ids[1:]
    assert from_message(change.message()).counters == ids[1:]
    assert from_message({**change.message(), "counters": " ".join(ids)}).counters == ids[1:]


@pytest.mark.parametrize("text", [" ", "a\x00", "b" * 201, "\ud800", 7, None])
def test_what_is_no_id_is_none(text: object) -> None:
    told = {"k": [], "t": [], "all": False, "stored": True, "counters": text}

    assert from_message(told) == Change()
    assert from_message({**told, "counters": "b  a"}).counters == ("b", "a")


@pytest.mark.asyncio
async def test_counters_of_a_process_end_once_for_each_reset() -> None:
    counters = LocalCounters(10, SystemClock())
    for ids, left in (("a", 0), ("a", 1), ("a b", 0), ("b", 1), ("b a", 2)):
        counters.reset(ids.split())
        assert await counters.count("k", clear=False) == left
        await counters.increment("k", 1, None)
