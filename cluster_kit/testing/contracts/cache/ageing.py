"""Scenarios: an old value stands in for a new one, or is loaded anew before it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Loads
from cluster_kit.testing.contracts.cache.loading import OwnError, numbers
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.cache.bench import Bench


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
