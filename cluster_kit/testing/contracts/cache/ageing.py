"""Scenarios: an old value stands in for a new one, or is loaded anew before it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from cluster_kit.errors import CacheUnavailable
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Loads
from cluster_kit.testing.contracts.cache.loading import OwnError, numbers
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cache import Cache
    from cluster_kit.testing.contracts.cache.bench import Bench

TAG = "rows"

AFTER: dict[str, Callable[[Cache], Awaitable[object]]] = {
    "delete": lambda cache: cache.delete(KEY),
    "tag": lambda cache: cache.invalidate_tags(TAG),
    "reset": lambda cache: cache.reset(),
    "set": lambda cache: cache.set(KEY, "new", 60),
}
"""After each of them nobody sees what was there before."""


@pytest.mark.asyncio
class AgeingScenarios(Scenarios):
    """`fail_safe`, `soft_timeout`, `eager`, `jitter`."""

    async def test_an_old_value_stands_in_for_one_that_cannot_be_loaded(self, bench: Bench) -> None:
        cache = await bench.cache(ttl=0.1, fail_safe=60)

        async def fail() -> object:
            raise OwnError

        await cache.set(KEY, {"old": 1})
        await asyncio.sleep(0.15)
        assert await cache.get(KEY) is None
        assert [await cache.wrap(KEY, fail) for _ in range(3)] == [{"old": 1}] * 3
        assert cache.stats().failures == 1  # not tried again at once
        await cache.delete(KEY)
        with pytest.raises(OwnError):
            await cache.wrap(KEY, fail)

    async def test_what_stands_in_is_no_value_to_be_changed(self, bench: Bench) -> None:
        cache = await bench.cache(ttl=0.1, fail_safe=60)

        async def fail() -> object:
            raise OwnError

        await cache.set(KEY, {"old": 1})
        await asyncio.sleep(0.15)
        assert await cache.wrap(KEY, fail) == {"old": 1}
        with pytest.raises(KeyError):
            await cache.ttl(KEY)
        assert await cache.set_value_in_object(KEY, "old", 2) is False
        assert await cache.set_value_in_object(KEY, "new", 2, create=True) is True
        assert await cache.get(KEY) == {"new": 2}

    async def test_an_old_value_stands_in_for_a_slow_one(self, bench: Bench) -> None:
        cache = await bench.cache(ttl=0.1, fail_safe=60, soft_timeout=0.05)
        await cache.set(KEY, "old")
        await asyncio.sleep(0.15)
        load = Loads(lambda: "new")
        load.go.clear()
        assert await cache.wrap(KEY, load, ttl=60) == "old"
        load.go.set()
        await bench.sees(cache, KEY, "new")
        assert load.runs == 1

    async def test_a_soft_timeout_that_is_no_shorter_takes_nothing_from_the_hard_one(
        self, bench: Bench
    ) -> None:
        cache, load = await bench.cache(fail_safe=60, soft_timeout=20, hard_timeout=20), numbers()
        load.go.clear()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.wrap(KEY, load)) for _ in range(2)]
            await load.has_begun()
            load.go.set()
        assert [task.result() for task in tasks] == [1, 1]
        assert load.runs == 1

    @pytest.mark.parametrize("way", list(AFTER))
    @pytest.mark.parametrize("l1_ttl", [None, 60])
    async def test_what_is_invalidated_as_a_load_begins_does_not_stand_in(
        self, bench: Bench, way: str, l1_ttl: float | None
    ) -> None:
        """Both calls come in one turn of the event loop."""
        cache = await bench.cache(ttl=0.1, fail_safe=60, l1_ttl=l1_ttl)
        await cache.set(KEY, "old", tags=[TAG])
        await asyncio.sleep(0.15)
        await overtaken(cache, way)

    @pytest.mark.needs("link_faults")
    @pytest.mark.parametrize("way", list(AFTER))
    async def test_nor_while_the_store_is_away(self, bench: Bench, way: str) -> None:
        cluster = await bench.cluster(timeout=0.3)
        cache = await bench.cache(cluster, ttl=0.1, fail_safe=60, l1_ttl=60)
        await cache.set(KEY, "old", tags=[TAG])
        await asyncio.sleep(0.15)
        async with bench.outage(cluster):
            await overtaken(cache, way)

    async def test_a_value_that_grows_old_is_loaded_early(self, bench: Bench) -> None:
        cache, load = await bench.cache(ttl=60, eager=0.001), numbers()
        assert await cache.wrap(KEY, load) == 1
        await asyncio.sleep(0.1)
        assert await cache.wrap(KEY, load) == 1  # at once, and loads besides
        await eventually(lambda: load.runs == 2)
        await bench.sees(cache, KEY, 2)

    @pytest.mark.needs("shared")
    async def test_nobody_waits_for_a_value_to_be_loaded_early(self, bench: Bench) -> None:
        cache, load = await bench.cache(ttl=60, eager=0.001, l1_size=0), numbers()
        assert await cache.wrap(KEY, load) == 1
        await asyncio.sleep(0.1)
        load.go.clear()
        for _ in range(5):
            assert await cache.wrap(KEY, load) == 1
        await eventually(lambda: load.runs == 2)
        assert await cache.wrap(KEY, load) == 1
        load.go.set()
        await bench.sees(cache, KEY, 2)
        assert load.runs == 2

    async def test_jitter_shortens_only(self, bench: Bench) -> None:
        cache = await bench.cache(ttl=100, jitter=0.5)
        await cache.mset({"a": 1})
        await cache.mset({"b": 1})
        ttls = [await cache.ttl(key) or 0 for key in ("a", "b")]
        assert all(49 < ttl <= 100 for ttl in ttls)
        assert ttls[0] != ttls[1]


async def fail() -> object:
    """Load nothing."""
    raise OwnError


async def overtaken(cache: Cache, way: str) -> None:
    """Invalidate in the very turn of the event loop in which a load that will fail begins."""

    async def ask() -> object:
        return await cache.wrap(KEY, fail)

    async def invalidate() -> None:
        await AFTER[way](cache)

    loop = asyncio.get_running_loop()
    asking, invalidating = loop.create_task(ask()), loop.create_task(invalidate())
    await asyncio.wait({asking, invalidating})
    for task, expected in ((asking, OwnError), (invalidating, CacheUnavailable)):
        assert isinstance(task.exception(), expected | None)
    is_new = way == "set" and invalidating.exception() is None
    assert await cache.get(KEY) == ("new" if is_new else None)
    if not is_new:
        with pytest.raises(OwnError):
            await cache.wrap(KEY, fail)
