"""Scenarios: what was invalidated is not served, and nobody brings it back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from cluster_kit.cache import MISSING
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Row
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cache import Cache
    from cluster_kit.testing.contracts.cache.bench import Bench, Loads

Invalidate = Callable[["Cache"], Awaitable[object]]
TAG = "rows"

WAYS: dict[str, Invalidate] = {
    "delete": lambda cache: cache.delete(KEY),
    "tag": lambda cache: cache.invalidate_tags(TAG),
    "reset": lambda cache: cache.reset(),
}
EACH_WAY = pytest.mark.parametrize("way", list(WAYS))


class Transaction:
    """As any library might have one."""

    def __init__(self) -> None:
        self._hooks: list[Callable[[], object]] = []

    def on_commit(self, hook: Callable[[], object]) -> None:
        """Call `hook` after the commit."""
        self._hooks.append(hook)

    def end(self, *, committed: bool) -> None:
        """Commit, or roll back."""
        for hook in self._hooks if committed else ():
            hook()


@pytest.mark.asyncio
class InvalidationScenarios(Scenarios):
    """Keys, tags, everything; here and on other instances; while it is loaded."""

    @EACH_WAY
    async def test_what_is_invalidated_is_gone(self, bench: Bench, way: str) -> None:
        cache, row = await bench.cache(), Row()
        assert await cache.wrap(KEY, row.loads(), tags=[TAG]) == {"row": 1}
        row.value = 2
        await WAYS[way](cache)
        assert await cache.get(KEY, MISSING) is MISSING
        assert await cache.wrap(KEY, row.loads(), tags=[TAG]) == {"row": 2}

    async def test_tags_and_reset_leave_others_alone(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        cache = await bench.cache(cluster)
        other = await cluster.caches.create_cache("contract.2", **bench.environment.options)
        await other.set(KEY, "theirs", tags=[TAG])
        await cache.set("a", 1, tags=[TAG, "more"])
        await cache.set("b", 2, tags=["more"])
        await cache.invalidate_tags(TAG)
        assert await cache.mget("a", "b") == [None, 2]
        await cache.reset()
        assert await cache.mget("a", "b") == [None, None]
        assert await other.get(KEY) == "theirs"
        await cache.set("a", 3)
        assert await cache.get("a") == 3

    @pytest.mark.needs("told")
    @EACH_WAY
    async def test_other_instances_forget_it(self, bench: Bench, way: str) -> None:
        row = Row()
        one, two = await bench.caches(2)
        for cache in (one, two):
            await cache.wrap(KEY, row.loads(), tags=[TAG])
            assert await cache.get(KEY) == {"row": 1}
        row.value = 2
        await WAYS[way](one)
        await bench.sees(two, KEY, None)
        assert await two.wrap(KEY, row.loads(), tags=[TAG]) == {"row": 2}

    @pytest.mark.needs("told")
    @EACH_WAY
    async def test_one_whose_caller_gives_up_is_carried_out(self, bench: Bench, way: str) -> None:
        slow, row = await bench.cluster(), Row()
        one, two = await bench.cache(slow), await bench.cache()
        for cache in (one, two):
            await cache.wrap(KEY, row.loads(), tags=[TAG])
        pauses = bench.pauses[slow.instance_id]
        pauses.arm(0, after=False)
        task = asyncio.get_running_loop().create_task(_invalidate(one, WAYS[way]))
        await (pauses.held() if self.features.shared else asyncio.sleep(0))
        task.cancel()
        await asyncio.wait({task})
        pauses.release()
        for cache in (one, two):
            await bench.sees(cache, KEY, None)
        await eventually(lambda: one.stats().unsent == 0)

    @pytest.mark.needs("told")
    async def test_a_new_value_replaces_what_others_hold(self, bench: Bench) -> None:
        one, two = await bench.caches(2)
        await two.set(KEY, "old")
        await bench.sees(two, KEY, "old")
        await one.set(KEY, "new")
        await bench.sees(two, KEY, "new" if self.features.shared else None)
        # Without a store the news of the old one may come so late that it takes the new one away.
        assert await one.get(KEY) in ({"new"} if self.features.shared else {"new", None})

    @pytest.mark.parametrize("committed", [True, False])
    async def test_a_transaction_decides(self, bench: Bench, *, committed: bool) -> None:
        cache, transaction = await bench.cache(), Transaction()
        await cache.mset({"key": 1, "tagged": 2}, tags=[TAG])
        await cache.set("other", 3)
        await cache.invalidate_after_commit(transaction, "key", tags=[TAG])
        assert await cache.mget("key", "tagged") == [1, 2]
        transaction.end(committed=committed)
        await bench.sees(cache, "key", None if committed else 1)
        await bench.sees(cache, "tagged", None if committed else 2)
        assert await cache.get("other") == 3

    @EACH_WAY
    async def test_a_load_that_began_before_is_not_kept(self, bench: Bench, way: str) -> None:
        cache, row = await bench.cache(), Row()
        await _overtaken(bench, cache, cache, row, WAYS[way])
        assert await cache.wrap(KEY, row.loads(), tags=[TAG]) == {"row": 2}

    @EACH_WAY
    async def test_who_asks_afterwards_does_not_join_it(self, bench: Bench, way: str) -> None:
        cache, row = await bench.cache(), Row()
        load, later = row.loads(), row.loads()
        load.go.clear()
        before = asyncio.get_running_loop().create_task(cache.wrap(KEY, load, tags=[TAG]))
        await load.has_begun()
        row.value = 2
        await WAYS[way](cache)
        assert await cache.wrap(KEY, later, tags=[TAG]) == {"row": 2}
        load.go.set()
        assert await before == {"row": 1}
        assert await cache.get(KEY) == {"row": 2}

    @pytest.mark.needs("told")
    @EACH_WAY
    async def test_a_load_overtaken_from_elsewhere_is_not_kept(
        self, bench: Bench, way: str
    ) -> None:
        loading, other = await bench.caches(2)
        row = Row()
        await _overtaken(bench, loading, other, row, WAYS[way])
        for cache in (loading, other):
            assert await cache.wrap(KEY, row.loads(), tags=[TAG]) == {"row": 2}


async def _invalidate(cache: Cache, how: Invalidate) -> None:
    await how(cache)


async def _overtaken(
    bench: Bench, loading: Cache, by: Cache, row: Row, invalidate: Invalidate
) -> None:
    """Invalidate while a load is under way, and let it end when the invalidation was heard."""
    load: Loads = row.loads()
    load.go.clear()
    await loading.set("marker", 1)
    task = asyncio.get_running_loop().create_task(loading.wrap(KEY, load, tags=[TAG]))
    await load.has_begun()
    row.value = 2
    await invalidate(by)
    await by.delete("marker")  # told after it
    await bench.sees(loading, "marker", None)
    load.go.set()
    assert await task == {"row": 1}
