"""Scenarios: what is missing is loaded once, and an old value stands in for one that cannot be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from cluster_kit.cache import MISSING, loaded
from cluster_kit.errors import (
    CacheError,
    CacheLoadTimeout,
    CacheRecursion,
    ConfigurationError,
    EncodeError,
    NotStartedError,
)
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Loads, together
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster_kit.cache import Cache
    from cluster_kit.testing.contracts.cache.bench import Bench


NO_FUNCTION: Any = "no function"
FALSY: tuple[object, ...] = (None, 0, "", False, [])


class OwnError(Exception):
    """Raised by loaders."""


@dataclass
class Row:
    """What a loader may return."""

    number: int


def numbers() -> Loads:
    """Return a loader of 1, 2, 3 and so on."""
    loads = Loads(lambda: loads.runs)
    return loads


@pytest.mark.asyncio
class LoadingScenarios(Scenarios):
    """`wrap`, `wrap_with_condition`, `cached`."""

    async def test_a_value_is_loaded_once(self, bench: Bench) -> None:
        cache, load = await bench.cache(), numbers()
        load.go.clear()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.wrap(KEY, load)) for _ in range(200)]
            await load.has_begun()
            load.go.set()
        assert {task.result() for task in tasks} == {1}
        assert load.runs == 1
        assert await cache.wrap(KEY, load) == 1
        assert cache.stats().loads == 1
        assert cache.stats().joined == 199

    @pytest.mark.needs("shared")
    async def test_a_value_is_loaded_once_among_all_instances(self, bench: Bench) -> None:
        caches, load = await bench.caches(3), numbers()
        load.go.clear()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c.wrap(KEY, load)) for c in caches for _ in range(20)]
            await load.has_begun()
            await asyncio.sleep(0.1)  # others look, and find that somebody loads it
            load.go.set()
        assert {task.result() for task in tasks} == {1}
        assert load.runs == 1

    @pytest.mark.needs("shared")
    async def test_what_a_dead_instance_promised_is_loaded_by_another(self, bench: Bench) -> None:
        dying = await bench.cluster(promise_ttl=0.5)
        caches = [await bench.cache(dying), *await bench.caches(2)]
        stuck, load = numbers(), numbers()
        stuck.go.clear()
        pauses = bench.pauses[dying.instance_id]
        lost = asyncio.get_running_loop().create_task(caches[0].wrap(KEY, stuck))
        await stuck.has_begun()
        pauses.arm(0, after=False)  # it prolongs its promise no more
        values = await together(*(cache.wrap(KEY, load) for cache in caches[1:]))
        assert values == [1, 1]
        assert load.runs == 1
        pauses.release()
        stuck.go.set()
        await lost

    async def test_falsy_values_are_kept(self, bench: Bench) -> None:
        cache = await bench.cache()
        for number, value in enumerate(FALSY):
            load = Loads(partial(_same, value))
            for _ in range(3):
                assert await cache.wrap(f"k{number}", load) == value
            assert load.runs == 1

    async def test_a_sync_function_runs_in_a_thread(self, bench: Bench) -> None:
        cache = await bench.cache()
        loop = asyncio.get_running_loop()

        def load() -> bool:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return loop.is_running()
            return False

        assert await cache.wrap(KEY, load) is True

    async def test_an_error_reaches_all_and_is_not_kept(self, bench: Bench) -> None:
        cache = await bench.cache()
        begun = asyncio.Event()

        async def fail() -> object:
            begun.set()
            await asyncio.sleep(0.05)
            raise OwnError

        results = await together(*(_outcome(cache, fail) for _ in range(5)))
        assert [type(result) for result in results] == [OwnError] * 5
        assert await cache.get(KEY, MISSING) is MISSING
        assert await cache.wrap(KEY, numbers()) == 1

    async def test_a_loader_that_asks_for_itself_is_told(self, bench: Bench) -> None:
        cache = await bench.cache()

        async def load() -> object:
            return await cache.wrap(KEY, load)

        with pytest.raises(CacheRecursion):
            await cache.wrap(KEY, load)

    async def test_a_loader_that_invalidates_its_key_and_asks_for_it_is_told(
        self, bench: Bench
    ) -> None:
        cache = await bench.cache()
        runs = 0

        async def load() -> object:
            nonlocal runs
            runs += 1
            assert runs < 10, "loads begin one another"
            await cache.delete(KEY)
            return await cache.wrap(KEY, load)

        with pytest.raises(CacheRecursion):
            await cache.wrap(KEY, load)
        assert runs == 1

    async def test_one_caller_who_leaves_does_not_end_it(self, bench: Bench) -> None:
        cache, load = await bench.cache(), numbers()
        load.go.clear()
        loop = asyncio.get_running_loop()
        leaving, staying = (loop.create_task(cache.wrap(KEY, load)) for _ in range(2))
        await load.has_begun()
        leaving.cancel()
        await asyncio.wait({leaving})
        load.go.set()
        assert await staying == 1
        assert load.runs == 1

    async def test_when_all_have_left_it_is_ended(self, bench: Bench) -> None:
        cache, load = await bench.cache(), numbers()
        load.go.clear()
        leaving = asyncio.get_running_loop().create_task(cache.wrap(KEY, load))
        await load.has_begun()
        leaving.cancel()
        await asyncio.wait({leaving})
        load.go.set()
        assert await cache.wrap(KEY, load) == 2

    async def test_a_condition_decides_what_is_kept(self, bench: Bench) -> None:
        cache, load = await bench.cache(), numbers()

        async def is_big(value: object) -> bool:
            return isinstance(value, int) and value > 2

        async def wrapped() -> object:
            return await cache.wrap_with_condition(KEY, load, is_cacheable=is_big)

        assert [await wrapped() for _ in range(5)] == [1, 2, 3, 3, 3]
        assert await cache.wrap_with_condition(KEY, load, use_cache=False) == 4
        assert await cache.get(KEY) == 3
        assert await cache.wrap_with_condition("kept", numbers(), ttl=60, tags=["t"]) == 1
        assert await cache.get("kept") == 1
        await cache.invalidate_tags("t")
        assert await cache.get("kept") is None
        assert await cache.get(KEY) == 3

    async def test_a_loader_can_say_more(self, bench: Bench) -> None:
        cache = await bench.cache(negative_ttl=0.2)
        assert await cache.wrap("ttl", lambda: loaded(5, ttl=30), ttl=60) == 5
        assert 20 < (await cache.ttl("ttl") or 0) <= 30
        assert await cache.wrap("not", lambda: loaded(6, keep=False)) == 6
        assert await cache.get("not", MISSING) is MISSING
        assert await cache.wrap("none", Loads(lambda: None), ttl=60) is None
        assert 0 < (await cache.ttl("none") or 0) <= 0.2
        await cache.wrap("both", lambda: loaded(None, ttl=30), ttl=60)
        assert 20 < (await cache.ttl("both") or 0) <= 30
        assert await cache.wrap("inner", lambda: loaded(loaded(7, ttl=30)), ttl=60) == 7
        assert 20 < (await cache.ttl("inner") or 0) <= 30
        for load in (lambda: loaded(8, ttl=30), Loads(lambda: loaded(8))):
            assert await cache.wrap_with_condition("none", load, use_cache=False) == 8

    async def test_what_is_not_kept_belongs_to_each_caller_too(self, bench: Bench) -> None:
        cache = await bench.cache()
        load = Loads(lambda: loaded({"rows": (Row(number=1), [1])}, keep=False))
        load.go.clear()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.wrap(KEY, load)) for _ in range(2)]
            await load.has_begun()
            load.go.set()
        one, two = (cast("dict[str, list[list[int]]]", task.result()) for task in tasks)
        assert one == two == {"rows": [{"number": 1}, [1]]}  # what its JSON says
        one["rows"][1].append(2)
        assert two["rows"][1] == [1]
        assert load.runs == 1
        without_json = object()
        assert await cache.wrap(KEY, lambda: loaded(without_json, keep=False)) is without_json

    async def test_a_loader_that_cancels_itself_is_told(self, bench: Bench) -> None:
        cache = await bench.cache()

        async def load() -> object:
            raise asyncio.CancelledError

        with pytest.raises(CacheError, match="CancelledError"):
            await cache.wrap(KEY, load)
        assert await cache.wrap(KEY, numbers()) == 1

    async def test_a_stop_ends_a_load(self, bench: Bench) -> None:
        cluster, load = await bench.cluster(), numbers()
        cache, other = await bench.cache(cluster), await bench.cache()
        load.go.clear()
        waiting = asyncio.get_running_loop().create_task(cache.wrap(KEY, load))
        await load.has_begun()
        await cluster.stop()
        with pytest.raises(NotStartedError):
            await waiting
        async with asyncio.timeout(5):  # nobody waits for what it had promised
            assert await other.wrap(KEY, numbers()) == 1

    async def test_what_cannot_be_kept_is_told(self, bench: Bench) -> None:
        cache = await bench.cache()
        with pytest.raises(EncodeError):
            await cache.wrap(KEY, lambda: {1, 2})
        with pytest.raises(ConfigurationError):
            await cache.wrap(KEY, NO_FUNCTION)
        with pytest.raises(ConfigurationError):
            await cache.wrap(KEY, numbers(), tags="text")

    async def test_a_slow_load_goes_on_without_its_caller(self, bench: Bench) -> None:
        cache, load = await bench.cache(hard_timeout=0.2), numbers()
        load.go.clear()
        with pytest.raises(CacheLoadTimeout):
            await cache.wrap(KEY, load)
        load.go.set()
        await bench.sees(cache, KEY, 1)
        assert load.runs == 1

    @pytest.mark.needs("shared")
    async def test_a_load_is_promised_for_as_long_as_it_takes(self, bench: Bench) -> None:
        slow = await bench.cluster(promise_ttl=1)
        one, other = await bench.cache(slow, hard_timeout=0.5), await bench.cache(hard_timeout=0.5)
        load, second = numbers(), numbers()
        load.go.clear()
        with pytest.raises(CacheLoadTimeout):
            await one.wrap(KEY, load)
        await asyncio.sleep(1.5)  # over the timeout and the promise, after which it is cancelled
        with pytest.raises(CacheLoadTimeout):
            await other.wrap(KEY, second)
        load.go.set()
        await bench.sees(other, KEY, 1)
        await eventually(lambda: not other.stats().loading)
        assert [load.runs, second.runs] == [1, 0]

    async def test_a_function_is_kept_by_its_arguments(self, bench: Bench) -> None:
        cache = await bench.cache()
        calls: list[tuple[int, str]] = []

        @cache.cached(key="user:{user_id}:{lang}", ttl=60, tags=["user:{user_id}"])
        async def user(user_id: int, lang: str = "en") -> dict[str, object]:
            calls.append((user_id, lang))
            return {"id": user_id, "lang": lang}

        assert await user(1) == await user(user_id=1) == await user(1, lang="en")
        assert await user(1, "de") == {"id": 1, "lang": "de"}
        assert calls == [(1, "en"), (1, "de")]
        await cache.invalidate_tags("user:1")
        await user(1)
        assert len(calls) == 3
        assert await user(1, "a b") == {"id": 1, "lang": "a b"}
        assert await cache.get("user:1:a%20b") == {"id": 1, "lang": "a b"}
        with pytest.raises(ConfigurationError):
            cache.cached(key="{nobody}")(user)


def _same(value: object) -> object:
    return value


async def _outcome(cache: Cache, load: Callable[[], Awaitable[object]]) -> object:
    try:
        return await cache.wrap(KEY, load)
    except OwnError as exc:
        return exc
