"""Where loaders run, and what they may ask for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from cluster_kit.cache import loading
from cluster_kit.errors import CacheLoadTimeout, CacheRecursion
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually

PLACES = 3


class Slow:
    """A sync loader, and how many of it run."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.go = threading.Event()
        self._guard = threading.Lock()

    def __call__(self) -> int:
        with self._guard:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(60)
        with self._guard:
            self.running -= 1
        return 1


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    monkeypatch.setattr("cluster_kit.cache.loaders.MOST_THREADS", PLACES)
    made = Slow()
    yield made
    made.go.set()


@pytest.mark.asyncio
async def test_sync_loaders_run_in_so_many_threads(
    cluster_factory: ClusterFactory, slow: Slow
) -> None:
    [cluster] = await cluster_factory()
    caches = [await cluster.caches.create_cache(name) for name in ("rows", "pages")]
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(c.wrap(f"k{n}", slow)) for c in caches for n in range(PLACES)]
        await eventually(lambda: slow.running == PLACES)
        await asyncio.sleep(0.05)
        slow.go.set()

    assert [load.result() for load in loads] == [1] * 2 * PLACES
    assert slow.most == PLACES


@pytest.mark.asyncio
async def test_a_thread_that_is_left_to_itself_has_no_place(
    cluster_factory: ClusterFactory, slow: Slow
) -> None:
    [cluster] = await cluster_factory()
    cache = await cluster.caches.create_cache("hanging", hard_timeout=0.1)
    callers = (cache.wrap(f"k{n}", slow) for n in range(PLACES))
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(answer) for answer in answers] == [CacheLoadTimeout] * PLACES

    async with asyncio.timeout(10):
        assert await cluster.cache.wrap("other", lambda: 2) == 2
    assert slow.running == PLACES


@pytest.mark.asyncio
async def test_what_a_sync_loader_waits_for_does_not_wait_for_its_place(
    cluster_factory: ClusterFactory, slow: Slow
) -> None:
    [cluster] = await cluster_factory()
    loop, all_here = asyncio.get_running_loop(), threading.Barrier(PLACES)

    def outer(number: int) -> int:
        all_here.wait(10)
        inner = cluster.cache.wrap(f"inner{number}", lambda: number)
        return asyncio.run_coroutine_threadsafe(inner, loop).result(10)

    async with asyncio.timeout(10):
        loads = (cluster.cache.wrap(f"k{n}", partial(outer, n)) for n in range(PLACES))
        assert await asyncio.gather(*loads) == [0, 1, 2]


@pytest.mark.asyncio
@pytest.mark.parametrize("needed", ["before", "after"])
async def test_what_an_async_load_needs_has_a_place_when_sync_loaders_wait_for_that(
    cluster_factory: ClusterFactory, slow: Slow, needed: str
) -> None:
    [cluster] = await cluster_factory()
    cache, loop = cluster.cache, asyncio.get_running_loop()
    join, joined = threading.Event(), asyncio.Event()

    async def shared() -> object:
        if needed == "after":
            await joined.wait()
        return await cache.wrap("middle", middle)

    async def middle() -> object:
        return await cache.wrap("inner", lambda: 1)

    def outer() -> object:
        join.wait(10)
        return asyncio.run_coroutine_threadsafe(cache.wrap("shared", shared), loop).result(10)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        loads = [group.create_task(cache.wrap(f"k{n}", outer)) for n in range(PLACES)]
        await eventually(lambda: cache.stats().loading == PLACES)
        loads.append(group.create_task(cache.wrap("shared", shared)))
        under_way = PLACES + (1 if needed == "after" else 3)
        await eventually(lambda: cache.stats().loading == under_way)
        join.set()
        if needed == "after":  # else it may be there before the last of them joins
            await eventually(lambda: cache.stats().joined == PLACES)
        joined.set()

    assert [load.result() for load in loads] == [1] * (PLACES + 1)


@pytest.mark.asyncio
async def test_a_load_that_waits_for_a_place_has_one_when_a_sync_loader_joins_it(
    cluster_factory: ClusterFactory, slow: Slow
) -> None:
    [cluster] = await cluster_factory()
    loop, queued = asyncio.get_running_loop(), threading.Event()

    def outer() -> int:
        queued.wait(10)
        rate = cluster.cache.wrap("rate", lambda: 1)
        return asyncio.run_coroutine_threadsafe(rate, loop).result(10)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        loads = [group.create_task(cluster.cache.wrap(f"k{n}", outer)) for n in range(PLACES)]
        await eventually(lambda: cluster.cache.stats().loading == PLACES)
        loads.append(group.create_task(cluster.cache.wrap("rate", lambda: 1)))
        await eventually(lambda: cluster.cache.stats().loading == PLACES + 1)
        queued.set()

    assert [load.result() for load in loads] == [1] * (PLACES + 1)


@pytest.mark.asyncio
async def test_loads_that_begin_one_another_are_not_remembered(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    runs, last = 0, asyncio.Event()
    remembered: list[int] = []

    async def load() -> int:
        nonlocal runs
        runs += 1
        remembered.append(len(loading._loads.get()))  # nothing else shows it
        asyncio.get_running_loop().create_task(again())
        return runs

    async def again() -> None:
        await eventually(lambda: cluster.cache.stats().loading == 0)
        if runs == 30:
            last.set()
            return
        await cluster.cache.delete("k")
        await cluster.cache.wrap("k", load)

    await cluster.cache.wrap("k", load)
    await last.wait()

    assert remembered == [1] * 30


@pytest.mark.asyncio
async def test_a_task_that_a_loader_has_started_may_ask_once_it_is_over(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    asked: list[asyncio.Task[int]] = []

    async def load() -> int:
        for _ in range(2):
            asked.append(asyncio.get_running_loop().create_task(audit()))
            await asyncio.wait(asked[:1])
        return 1

    async def audit() -> int:
        if len(asked) == 2:
            await eventually(lambda: cluster.cache.stats().loading == 0)
        return await cluster.cache.wrap("k", load)

    assert await cluster.cache.wrap("k", load) == 1
    assert isinstance(asked[0].exception(), CacheRecursion)
    assert await asked[1] == 1
