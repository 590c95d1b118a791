"""Loads that do not end, and promises whose taking back meets a bad store."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from cluster_kit import Cache, Cluster
from cluster_kit.errors import CacheLoadTimeout, CacheUnavailable, NotStartedError
from cluster_kit.ports import AdapterContext
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore

PROMISE = 60
"""Seconds: who waits for that to end fails the test."""


class Stuck:
    """A sync loader that hangs, as in a call without a timeout."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        self._go.wait(60)
        self.ended.set()
        return "late"

    def release(self) -> None:
        self._go.set()

    async def end(self) -> None:
        """Let it return, and give what it returns the time to be seen."""
        self.release()
        await eventually(self.ended.is_set)
        await asyncio.sleep(0.05)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.release()


async def quick() -> str:
    return "quick"


async def loads_at_once(cache: Cache) -> None:
    async with asyncio.timeout(PROMISE / 6):
        assert await cache.wrap("row", quick) == "quick"


async def two(factory: ClusterFactory, **options: Any) -> tuple[list[Cluster], list[Cache]]:
    clusters = await factory(2, cache={"promise_ttl": PROMISE})
    return clusters, [await c.caches.create_cache("rows", ttl=600, **options) for c in clusters]


@pytest.mark.asyncio
async def test_a_thread_that_hangs_is_given_up_at_its_deadline(
    cluster_factory: ClusterFactory, stuck: Stuck, caplog: pytest.LogCaptureFixture
) -> None:
    _, [here, there] = await two(cluster_factory, hard_timeout=0.1)
    told: list[float] = []
    with caplog.at_level(logging.WARNING):
        while here.stats().loading or not told:
            with pytest.raises(CacheLoadTimeout) as error:
                await here.wrap("row", stuck)
            told.append(error.value.timeout)
            assert (error.value.cache, error.value.key) == ("rows", "row")
            assert "hard_timeout" in str(error.value)
    await loads_at_once(there)
    await stuck.end()

    assert max(told) == 1  # who waited then; the others for as long as they do
    assert "the load of row was given up: it took longer than 1 s" in caplog.text
    assert [await cache.get("row") for cache in (here, there)] == ["quick", "quick"]


@pytest.mark.asyncio
async def test_who_waits_at_the_deadline_gets_the_older_value(
    cluster_factory: ClusterFactory, stuck: Stuck
) -> None:
    _, [here, _] = await two(cluster_factory, hard_timeout=0.2, fail_safe=600)
    await here.set("row", "old", ttl=0.05)
    await asyncio.sleep(0.1)
    assert await here.wrap("row", stuck) == "old"
    assert here.stats().loading == 1
    await eventually(lambda: here.stats().failures == 1)  # the deadline

    assert await here.wrap("row", quick) == "old"
    await eventually(lambda: here.stats().loading == 0)
    await stuck.end()
    assert await here.get("row") != "late"


@pytest.mark.asyncio
async def test_a_thread_nobody_waits_for_any_more_is_joined_by_who_comes(
    cluster_factory: ClusterFactory, stuck: Stuck
) -> None:
    _, [here, there] = await two(cluster_factory)
    for _ in range(3):
        leaving = asyncio.get_running_loop().create_task(here.wrap("row", stuck))
        await eventually(lambda: stuck.begun.is_set() and here.stats().loading == 1)
        leaving.cancel()
        await asyncio.wait({leaving})
    stuck.release()

    await eventually(lambda: not here.stats().loading)
    assert here.stats().loads == 1
    assert [await cache.get("row") for cache in (here, there)] == ["late", "late"]


@pytest.mark.asyncio
async def test_a_timeout_of_the_loaders_own_ends_no_promise(
    cluster_factory: ClusterFactory,
) -> None:
    clusters = await cluster_factory(2, cache={"promise_ttl": 1.2})
    here, there = [await c.caches.create_cache("rows", ttl=600) for c in clusters]
    begun, loads = asyncio.Event(), 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        begun.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.5)  # rolls back, while the promise is looked after
        await asyncio.sleep(1.5)  # longer than the promise
        return "row"

    one = asyncio.get_running_loop().create_task(here.wrap("row", load))
    await begun.wait()

    assert await there.wrap("row", load) == await one == "row"
    assert loads == 1


@pytest.mark.asyncio
async def test_a_stop_does_not_wait_for_a_thread(
    cluster_factory: ClusterFactory, stuck: Stuck
) -> None:
    [one, _], [here, there] = await two(cluster_factory)
    waiting = asyncio.get_running_loop().create_task(here.wrap("row", stuck))
    await eventually(stuck.begun.is_set)
    await one.stop()
    with pytest.raises(NotStartedError):
        await waiting

    await loads_at_once(there)


@pytest.mark.asyncio
async def test_a_loader_that_will_not_end_is_promised_no_longer(
    cluster_factory: ClusterFactory,
) -> None:
    clusters = await cluster_factory(2, cache={"promise_ttl": 0.5})
    here, there = [await c.caches.create_cache("rows", ttl=600) for c in clusters]
    begun, go, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                told.set()
        return "late"

    leaving = asyncio.get_running_loop().create_task(here.wrap("row", stubborn))
    await begun.wait()
    leaving.cancel()
    await told.wait()

    await loads_at_once(there)
    go.set()
    await eventually(lambda: not here.stats().loading)
    assert await there.get("row") == "quick"


class Slow(MemoryCacheStore):
    """Does what it is told although it answers late, or never."""

    def __init__(self, url: str, context: AdapterContext) -> None:
        super().__init__(url, context)
        self.late: float | None = None
        self.swaps = 0

    async def swap(
        self,
        key: str,
        body: bytes | None,
        *,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[bool, list[bytes | None]]:
        self.swaps += 1
        late, self.late = self.late, None
        call = super().swap(
            key, body, expected=expected, ttl=ttl, then_read=then_read, timeout=timeout
        )
        if late is None:
            return await call
        task = asyncio.get_running_loop().create_task(_after(late, call))
        task.add_done_callback(lambda done: done.exception())
        raise CacheUnavailable("rows", "no answer in time")


async def _after(seconds: float, call: Any) -> None:
    await asyncio.sleep(seconds)
    await call


@asynccontextmanager
async def a_load(
    factory: ClusterFactory,
    *,
    late: float | None = None,
    ends: asyncio.Event | None = None,
    backplane: bool = True,
) -> AsyncGenerator[tuple[Cluster, Slow, asyncio.Task[object], Cache], None]:
    """Of one instance, with its store, and another instance."""
    stores: list[Slow] = []

    def make(url: str, context: AdapterContext) -> Slow:
        stores.append(Slow(url, context))
        return stores[-1]

    clusters = await factory(2, start=False, cache={"promise_ttl": PROMISE})
    for cluster in clusters:
        cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
        await cluster.start()
    here, there = [
        await c.caches.create_cache("rows", ttl=600, backplane=backplane) for c in clusters
    ]
    await here.set("other", 1)  # what the cache needs of its store is there
    begun = asyncio.Event()

    async def load() -> Mapping[str, object]:
        begun.set()
        await (ends or asyncio.Event()).wait()
        return {}

    stores[0].late = late
    loading = asyncio.get_running_loop().create_task(here.wrap("row", load))
    await begun.wait()
    yield clusters[0], stores[0], loading, there


@pytest.mark.asyncio
async def test_a_promise_that_comes_late_is_taken_back(cluster_factory: ClusterFactory) -> None:
    async with a_load(cluster_factory, late=0.3) as (_, store, loading, there):
        loading.cancel()
        await asyncio.wait({loading})
        await asyncio.sleep(0.4)
        assert store.swaps > 2  # one of them before it came

        await loads_at_once(there)


@pytest.mark.asyncio
async def test_a_promise_that_comes_after_its_load_is_taken_back(
    cluster_factory: ClusterFactory,
) -> None:
    ends = asyncio.Event()
    async with a_load(cluster_factory, late=0.3, ends=ends) as (_, store, loading, there):
        ends.set()
        assert await loading == {}
        swaps = store.swaps
        await asyncio.sleep(0.4)
        assert store.swaps > swaps

        await loads_at_once(there)


@pytest.mark.asyncio
@pytest.mark.parametrize("heard", [True, False])
async def test_a_promise_that_comes_after_an_invalidation_gives_no_right_to_store(
    cluster_factory: ClusterFactory, *, heard: bool
) -> None:
    ends = asyncio.Event()
    async with a_load(cluster_factory, late=0.2, ends=ends, backplane=heard) as load:
        _, store, loading, there = load
        assert not await there.delete("row")
        await asyncio.sleep(0.3)  # it has come
        ends.set()
        assert await loading == {}

        assert await there.get("row") is None
        await loads_at_once(there)
        assert store.swaps > 1


@pytest.mark.asyncio
async def test_a_promise_is_taken_back_once_the_store_is_there_again(
    cluster_factory: ClusterFactory,
) -> None:
    async with a_load(cluster_factory) as (_, store, loading, there):
        store.disconnect()
        loading.cancel()
        await asyncio.wait({loading})
        await asyncio.sleep(0.2)
        store.reconnect()

        await loads_at_once(there)
        swaps = store.swaps
        await asyncio.sleep(0.5)
        assert store.swaps == swaps


@pytest.mark.asyncio
async def test_a_stop_waits_a_second_at_most_for_what_cannot_be_taken_back(
    cluster_factory: ClusterFactory,
) -> None:
    async with a_load(cluster_factory) as (cluster, store, loading, _):
        store.disconnect()
        begin = time.monotonic()
        await cluster.stop()

        assert time.monotonic() - begin < 5
        with pytest.raises(NotStartedError):
            await loading
