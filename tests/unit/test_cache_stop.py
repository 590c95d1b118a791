"""What becomes of a call that is under way when its instance stops."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

import pytest

from cluster_kit import Cache, Cluster
from cluster_kit.cache import loading, upkeep
from cluster_kit.errors import CacheUnavailable, NotStartedError
from cluster_kit.ports import AdapterContext, CacheStore
from cluster_kit.testing.contracts.cache.pausing import Pauses, PausingStore
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.pubsub import MemoryPubSub


async def with_pauses(
    factory: ClusterFactory, pubsub: Callable[[str, AdapterContext], MemoryPubSub] = MemoryPubSub
) -> tuple[Cluster, Pauses, Cache, Cache]:
    """An instance, what holds its calls of the store, its cache, and that of another one."""
    pauses = Pauses()

    def make(url: str, context: AdapterContext) -> CacheStore:
        return PausingStore(MemoryCacheStore(url, context), pauses)

    one, two = await factory(2, start=False)
    one.registry.register(dataclasses.replace(ADAPTER, cache=make, pubsub=pubsub))
    caches: list[Cache] = []
    for cluster in (one, two):
        await cluster.start()
        caches.append(await cluster.caches.create_cache("rows", backplane=True, l1_ttl=60))
    here, there = caches
    return one, pauses, here, there


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda cache: cache.delete("row"), id="delete"),
        pytest.param(lambda cache: cache.invalidate_tags("t"), id="tags"),
        pytest.param(lambda cache: cache.reset(), id="reset"),
        pytest.param(lambda cache: cache.set("row", {"name": "new"}), id="set"),
        pytest.param(lambda cache: cache.set_value_in_object("row", "name", "new"), id="field"),
    ],
)
async def test_a_stop_waits_until_a_change_has_been_told_to_all(
    change: Callable[[Cache], Awaitable[object]], cluster_factory: ClusterFactory
) -> None:
    one, pauses, here, there = await with_pauses(cluster_factory)
    old = {"name": "old"}
    await here.set("row", old, tags=["t"])
    assert await there.get("row") == old

    async with asyncio.TaskGroup() as group:

        async def call() -> None:
            await change(here)

        pauses.arm(0, after=True)
        group.create_task(call())
        await pauses.reached.wait()
        stop = group.create_task(one.stop())
        done, _ = await asyncio.wait({stop}, timeout=0.5)
        assert not done
        pauses.release()

    await eventually(lambda: there.get("row"), lambda value: value != old)


@pytest.mark.asyncio
async def test_what_a_call_could_not_do_after_a_stop_is_said_and_nothing_promised(
    cluster_factory: ClusterFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(upkeep, "LAST_WORDS", 0.1)
    one, pauses, here, _ = await with_pauses(cluster_factory)

    async def call() -> str:
        with pytest.raises(CacheUnavailable) as caught:
            await here.delete("row")
        return str(caught.value)

    async with asyncio.TaskGroup() as group:
        pauses.arm(0, after=False)
        deleting = group.create_task(call())
        await pauses.reached.wait()
        await one.stop()
        with caplog.at_level(logging.ERROR):
            pauses.release()
            text = await deleting

    assert text.endswith("other instances could not be told, and the cluster stops")
    assert "invalidations were not told to all, and will not be" in caplog.text


@pytest.mark.asyncio
async def test_a_call_that_hangs_takes_no_time_from_what_other_caches_are_to_tell(
    cluster_factory: ClusterFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(upkeep, "LAST_WORDS", 1.0)
    monkeypatch.setattr(upkeep, "LOOK", 60.0)  # nothing is told before the stop
    links: list[MemoryPubSub] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        links.append(MemoryPubSub(url, context))
        return links[-1]

    one, pauses, here, _ = await with_pauses(cluster_factory, pubsub=make)
    other = await one.caches.create_cache("pages", backplane=True)
    links[0].disconnect()
    await other.reset()
    links[0].reconnect()

    pauses.arm(0, after=False)
    hanging = asyncio.ensure_future(here.delete("row"))
    await pauses.reached.wait()
    await one.stop()
    pauses.release()
    with pytest.raises(CacheUnavailable):
        await hanging

    assert "telling the last invalidations of cache 'rows' failed" in caplog.text
    assert "cache 'pages'" not in caplog.text


@pytest.mark.asyncio
async def test_a_stop_just_after_the_link_is_back_tells_what_was_put_off(
    cluster_factory: ClusterFactory,
) -> None:
    links: list[MemoryPubSub] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        links.append(MemoryPubSub(url, context))
        return links[-1]

    one, two = await cluster_factory(2, start=False, cache={"url": "memory://"})
    one.registry.register(dataclasses.replace(ADAPTER, pubsub=make))
    await one.start()
    await two.start()
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.set("row", "old")
    links[0].disconnect()
    await eventually(lambda: here.troubles() != [])
    with pytest.raises(CacheUnavailable):
        await here.delete("row")

    links[0].reconnect()
    await one.stop()

    await eventually(lambda: there.get("row"), lambda value: value is None)


@pytest.mark.asyncio
async def test_a_stop_ends_the_loads_of_all_caches_side_by_side(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "GRACE", 60.0)  # one after the other would take as long
    [cluster] = await cluster_factory()
    begun, ending = asyncio.Semaphore(0), asyncio.Barrier(3)

    async def load() -> None:
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            await ending.wait()

    caches = [await cluster.caches.create_cache(name) for name in ("rows", "pages", "users")]
    callers = [asyncio.ensure_future(cache.wrap("key", load)) for cache in caches]
    for _ in callers:
        await begun.acquire()
    async with asyncio.timeout(10):
        await cluster.stop()

    for caller in callers:
        with pytest.raises(NotStartedError):
            await caller


@pytest.mark.asyncio
async def test_others_are_told_at_a_stop_although_the_store_does_not_answer(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LAST_WORDS", 3.0)
    one, pauses, here, there = await with_pauses(cluster_factory)
    await here.set("row", "old")
    assert await there.get("row") == "old"

    pauses.arm(0, after=False)
    hanging = asyncio.ensure_future(here.delete("other"))
    await pauses.reached.wait()
    given_up = asyncio.ensure_future(here.delete("row"))
    await asyncio.sleep(0)
    stop = asyncio.ensure_future(one.stop())
    given_up.cancel()
    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert not stop.done()

    pauses.release()
    await stop
    assert await hanging is False
