"""Scenarios: counters and objects are changed by many at once, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cluster_kit.cache import MISSING
from cluster_kit.errors import ConfigurationError, EncodeError
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Loads, together
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cache import Cache
    from cluster_kit.testing.contracts.cache.bench import Bench


NO_TEXT: Any = 1


@pytest.mark.asyncio
class CounterScenarios(Scenarios):
    """`incr` and its like, and the `…_value_in_object` methods."""

    async def test_a_counter_counts(self, bench: Bench) -> None:
        cache = await bench.cache()
        assert await cache.count(KEY) == 0
        assert [await cache.incr(KEY), await cache.incr(KEY, 5), await cache.count(KEY)] == [
            1,
            6,
            6,
        ]
        assert await cache.get(KEY) is None
        assert await cache.clear_count(KEY) == 6
        assert await cache.incr(KEY) == 1
        await cache.reset()
        assert await cache.count(KEY) == 0

    async def test_a_window_is_fixed(self, bench: Bench) -> None:
        cache = await bench.cache()
        loop = asyncio.get_running_loop()
        start = loop.time()
        window = 0.3 if self.features.short_ttl else 1.0
        counts = [await cache.incr(KEY, ttl=window)]

        async def began_anew() -> bool:
            counts.append(await cache.incr(KEY, ttl=window))
            return counts[-1] == 1

        await eventually(began_anew, timeout=10)
        assert loop.time() - start >= window * 0.9
        assert counts[:-1] == list(range(1, len(counts)))

    @pytest.mark.needs("shared")
    async def test_counting_together_loses_nothing(self, bench: Bench) -> None:
        one, two = await bench.caches(2)
        counts = await together(*(c.incr(KEY) for c in (one, two) for _ in range(100)))
        assert sorted(counts) == list(range(1, 201))

    @pytest.mark.needs("shared")
    async def test_counters_begin_anew_after_a_reset_elsewhere(self, bench: Bench) -> None:
        one, two = await bench.caches(2)
        await together(one.incr(KEY, 5), two.incr(KEY, 5))
        await one.reset()
        assert await two.incr(KEY) == 1

    async def test_a_field_is_set_read_and_removed(self, bench: Bench) -> None:
        cache = await bench.cache()
        assert await cache.get_value_in_object(KEY, "a", "default") == "default"
        assert await cache.delete_value_in_object(KEY, "a") is False
        assert await cache.set_value_in_object(KEY, "a", None, create=True) is True
        assert await cache.set_value_in_object(KEY, "b", [1]) is True
        assert await cache.get(KEY) == {"a": None, "b": [1]}
        assert await cache.get_value_in_object(KEY, "a", "default") is None
        assert await cache.delete_value_in_object(KEY, "a") is True
        assert await cache.delete_value_in_object(KEY, "a") is False
        assert await cache.get(KEY) == {"b": [1]}

    async def test_a_field_of_nothing_is_not_set(self, bench: Bench) -> None:
        cache = await bench.cache()
        whole = {"cart": "Warenkorb", "pay": "Bezahlen"}
        assert await cache.set_value_in_object(KEY, "pay", "Zahlen") is False
        assert await cache.get(KEY, MISSING) is MISSING
        assert await cache.wrap(KEY, Loads(lambda: whole)) == whole
        await cache.delete(KEY)
        assert await cache.set_value_in_object(KEY, "pay", "Zahlen") is False
        assert await cache.wrap(KEY, Loads(lambda: whole)) == whole

    @pytest.mark.needs("shared")
    async def test_a_field_of_what_another_instance_deletes_is_not_set(self, bench: Bench) -> None:
        slow = await bench.cluster()
        one, other = await bench.cache(slow), await bench.cache()
        pauses = bench.pauses[slow.instance_id]
        await one.set(KEY, {"pay": "Bezahlen"})
        pauses.arm(1, after=False)  # between what it reads and what it writes
        task = asyncio.get_running_loop().create_task(one.set_value_in_object(KEY, "pay", "Zahlen"))
        await pauses.held()
        await other.delete(KEY)
        pauses.release()
        assert await task is False
        assert await one.get(KEY) is await other.get(KEY) is None

    async def test_an_object_that_is_made_is_as_any_value(self, bench: Bench) -> None:
        cache = await bench.cache(ttl=0.2, fail_safe=60)
        assert await cache.set_value_in_object(KEY, "a", 1, create=True) is True
        assert 0 < (await cache.ttl(KEY) or 0) <= 0.2
        await asyncio.sleep(0.25)
        assert await cache.set_value_in_object(KEY, "a", 2) is False

        async def fail() -> object:
            raise OSError

        assert await cache.wrap(KEY, fail) == {"a": 1}

    async def test_a_field_keeps_the_ttl_and_the_tags(self, bench: Bench) -> None:
        cache = await bench.cache()
        await cache.set(KEY, {"a": 1}, 60, tags=["t"])
        await cache.set_value_in_object(KEY, "b", 2)
        assert 50 < (await cache.ttl(KEY) or 0) <= 60
        await cache.invalidate_tags("t")
        assert await cache.get(KEY) is None

    async def test_what_is_no_object_is_refused(self, bench: Bench) -> None:
        cache = await bench.cache()
        await cache.set(KEY, [1])
        for call in (cache.get_value_in_object, cache.delete_value_in_object):
            with pytest.raises(ConfigurationError):
                await call(KEY, "a")
        with pytest.raises(ConfigurationError):
            await cache.set_value_in_object(KEY, "a", 1)
        with pytest.raises(ConfigurationError):
            await cache.set_value_in_object("other", NO_TEXT, 1)
        with pytest.raises(ConfigurationError):
            await cache.get_value_in_object("other", NO_TEXT)
        assert await cache.get(KEY) == [1]
        with pytest.raises(EncodeError):
            await cache.set_value_in_object("other", "a", MISSING, create=True)
        assert await cache.get("other") is None

    async def test_fields_set_at_once_are_all_there(self, bench: Bench) -> None:
        both = [await bench.cache()]
        if self.features.shared:
            both.append(await bench.cache())
        await both[0].set(KEY, {}, 60)

        async def change(cache: Cache, number: int) -> None:
            await cache.set_value_in_object(KEY, f"f{number}", number)

        changes = [change(both[n % len(both)], n) for n in range(30)]
        await together(*changes)
        for cache in both:
            await bench.sees(cache, KEY, {f"f{n}": n for n in range(30)})
