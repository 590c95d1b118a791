"""Scenarios: whatever a call of one instance waits for, no invalidation by another is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from cluster_kit.cache.options import CacheValues
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Row, together
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cache import Cache
    from cluster_kit.testing.contracts.cache.bench import Bench
    from cluster_kit.testing.contracts.cache.pausing import Pauses

MOST_CALLS = 10  # of the store, in one operation
TAG = "rows"
OLD, NEW = {"row": 1}, {"row": 2}

Step = Callable[["Cache", Row], Awaitable[object]]
"""Something done to a cache, with the row in the database that it caches."""


async def _wrap(cache: Cache, row: Row) -> object:
    return await cache.wrap(KEY, row.loads(), tags=[TAG], ttl=60)


async def _nothing(cache: Cache, row: Row) -> None:
    """Leave it as it is."""


async def _set_old(cache: Cache, row: Row) -> None:
    await cache.set(KEY, row.read(), 60, tags=[TAG])


async def _set_expired(cache: Cache, row: Row) -> None:
    await cache.set(KEY, row.read(), 0.01, tags=[TAG])
    await asyncio.sleep(0.03)


async def _renew(cache: Cache, row: Row) -> None:
    await asyncio.sleep(0.01)  # until it has an age
    await _wrap(cache, row)
    await _rest(cache)


async def _change(cache: Cache, row: Row) -> None:
    del row
    await cache.set_value_in_object(KEY, "more", 1)


async def _delete(cache: Cache, row: Row) -> None:
    del row
    await cache.delete(KEY)


async def _delete_twice(cache: Cache, row: Row) -> None:
    for _ in range(2):
        await _delete(cache, row)
        await _wrap(cache, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a slow instance does, and what there is before."""

    do: Step
    before: Step = _nothing
    options: CacheValues = field(default_factory=CacheValues)


OPERATIONS: dict[str, Operation] = {
    "a load": Operation(do=_wrap),
    "a load beside an old value": Operation(
        do=_wrap, before=_set_expired, options={"fail_safe": 60}
    ),
    "an early load": Operation(do=_renew, before=_set_old, options={"eager": 0.0001}),
    "a get": Operation(do=lambda cache, _: cache.get(KEY), before=_set_old),
    "a change of a field": Operation(do=_change, before=_set_old),
}

INVALIDATIONS: dict[str, Step] = {
    "delete": _delete,
    "tag": lambda cache, _: cache.invalidate_tags(TAG),
    "reset": lambda cache, _: cache.reset(),
    "set": _set_old,  # by then it is the new one
    "delete, load, delete, load": _delete_twice,
}


@pytest.mark.asyncio
class RaceScenarios(Scenarios):
    """An operation is held at each of its calls of the store, before it and before its answer."""

    @pytest.mark.needs("shared")
    @pytest.mark.parametrize("way", list(INVALIDATIONS))
    @pytest.mark.parametrize("operation", list(OPERATIONS))
    async def test_no_step_brings_an_old_value_back(
        self, bench: Bench, operation: str, way: str
    ) -> None:
        operated = OPERATIONS[operation]
        slow = await bench.cluster()
        one = await bench.cache(slow, **operated.options)
        other = await bench.cache(**operated.options)
        pauses = bench.pauses[slow.instance_id]
        for after in (False, True):
            for number in range(MOST_CALLS):
                row = Row()
                await _rest(one, other)
                await other.reset()
                await bench.sees(one, KEY, None)
                await operated.before(other, row)
                pauses.arm(number, after=after)
                held = await _overtake(one, other, operated.do, INVALIDATIONS[way], row, pauses)
                await bench.sees_not(one, KEY, OLD)
                assert not _is_old(await _wrap(other, row))
                await eventually(lambda: one.get(KEY), lambda value: not _is_old(value))
                assert not _is_old(await _wrap(one, row))
                if not held:
                    break
            else:
                raise AssertionError("it takes more calls of the store than were held")

    @pytest.mark.needs("shared")
    @pytest.mark.parametrize("way", list(INVALIDATIONS))
    async def test_who_joins_a_load_after_an_invalidation_elsewhere_gets_the_new_value(
        self, bench: Bench, way: str
    ) -> None:
        one, other = await bench.caches(2)
        row, loop = Row(), asyncio.get_running_loop()
        load = row.loads()
        load.go.clear()
        began = loop.create_task(one.wrap(KEY, load, tags=[TAG]))
        await load.has_begun()
        row.value = 2
        await INVALIDATIONS[way](other, row)
        joined = [loop.create_task(_wrap_alone(one, row)) for _ in range(3)]
        await asyncio.sleep(0)
        load.go.set()
        assert await began == OLD
        assert [await task for task in joined] == [NEW] * 3

    @pytest.mark.needs("shared")
    @pytest.mark.parametrize("way", list(INVALIDATIONS))
    async def test_what_is_invalidated_unheard_while_it_is_loaded_is_not_held(
        self, bench: Bench, way: str
    ) -> None:
        one, other = await bench.caches(2, l1_ttl=60, backplane=False)
        row, loop = Row(), asyncio.get_running_loop()
        load = row.loads()
        load.go.clear()
        loading = loop.create_task(one.wrap(KEY, load, tags=[TAG]))
        await load.has_begun()
        row.value = 2
        await INVALIDATIONS[way](other, row)
        load.go.set()
        assert await loading == OLD
        assert not _is_old(await one.get(KEY))

    @pytest.mark.needs("shared")
    @pytest.mark.parametrize("after", [False, True])
    async def test_who_gives_up_leaves_no_promise_behind(self, bench: Bench, after: bool) -> None:  # noqa: FBT001 - a parameter
        leaving = await bench.cluster()
        one, other = await bench.cache(leaving), await bench.cache()
        await together(one.get(KEY), other.get(KEY))
        pauses, loop = bench.pauses[leaving.instance_id], asyncio.get_running_loop()
        for number in range(2):  # it looks, and promises
            key = f"k{number}"
            pauses.arm(number, after=after)
            given_up = loop.create_task(one.wrap(key, Row().loads()))
            await pauses.held()
            given_up.cancel()
            await asyncio.wait({given_up})
            pauses.release()
            async with asyncio.timeout(5):
                assert await other.wrap(key, Row().loads()) == OLD

    @pytest.mark.needs("shared")
    async def test_a_new_value_is_not_overwritten_by_an_old_load(self, bench: Bench) -> None:
        loading, other = await bench.caches(2)
        row = Row()
        load = row.loads()
        load.go.clear()
        task = asyncio.get_running_loop().create_task(loading.wrap(KEY, load))
        await load.has_begun()
        await other.set(KEY, {"row": 5})
        load.go.set()
        assert await task == {"row": 1}
        assert await other.get(KEY) == {"row": 5}
        await bench.sees(loading, KEY, {"row": 5})


async def _wrap_alone(cache: Cache, row: Row) -> object:
    return await _wrap(cache, row)


async def _overtake(
    one: Cache, other: Cache, operate: Step, invalidate: Step, row: Row, pauses: Pauses
) -> bool:
    """Invalidate while an operation is held; return whether it was."""
    loop = asyncio.get_running_loop()

    async def run() -> None:
        await operate(one, row)

    task, reached = loop.create_task(run()), loop.create_task(pauses.reached.wait())
    await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
    held = reached.done()
    row.value = 2
    await invalidate(other, row)
    pauses.release()
    await task
    reached.cancel()
    return held


async def _rest(*caches: Cache) -> None:
    """Wait until nothing is loaded in the background."""
    await eventually(lambda: not any(cache.stats().loading for cache in caches))


def _is_old(value: object) -> bool:
    """Whether anything is in it that was invalidated."""
    if not isinstance(value, dict):
        return False
    return cast("dict[str, object]", value).get("row") == OLD["row"]
