"""Scenarios: a value is a value, a miss is a miss, on every store alike."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cluster_kit.cache import MISSING
from cluster_kit.errors import ConfigurationError, EncodeError, InvalidNameError
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import together
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.cache.bench import Bench

VALUES: tuple[Any, ...] = (
    *(None, 0, "", False, True, [], {}, 1.5, -7, "text", "Ünï\u2028", 2**60),
    *([1, [2, {"a": None}]], {"a": {"b": [1, 2, {"c": "d"}]}, "": 0}),
)
BAD_KEYS: tuple[Any, ...] = (
    *("", " ", "a b", "a\r\nb", "a\x00b", "x" * 201, "ж" * 101, "\ud800", "a*", "#"),
    *(None, 17, b"bytes", ["list"], ("tuple",)),
)
BAD_TTLS: tuple[Any, ...] = (0, 0.0, -1, float("nan"), float("inf"), "5", True, False, 31 * 86400)
BAD_AMOUNTS: tuple[Any, ...] = (0, -1, True, 1.5, "1", 2**31 + 1)
BAD_VALUES: tuple[Any, ...] = (float("nan"), object(), b"bytes", {1: "x"}, {"x"}, "\ud800")


@pytest.mark.asyncio
class ValueScenarios(Scenarios):
    """Values, times, bad input."""

    async def test_every_value_comes_back_as_it_was(self, bench: Bench) -> None:
        cache = await bench.cache()
        for number, value in enumerate(VALUES):
            await cache.set(f"k{number}", value, 60)
        for _ in range(2):
            found = [await cache.get(f"k{number}", MISSING) for number in range(len(VALUES))]
            assert found == list(VALUES)
            assert [type(value) for value in found] == [type(value) for value in VALUES]
        assert await cache.mget(*(f"k{n}" for n in range(len(VALUES)))) == list(VALUES)

    async def test_a_miss_is_told_from_a_stored_none(self, bench: Bench) -> None:
        cache = await bench.cache()
        await cache.set("none", None)
        assert await cache.get("none", "default") is None
        assert await cache.get("other", "default") == "default"
        assert await cache.get("other") is None
        assert await cache.get("other", MISSING) is MISSING
        assert await cache.mget("none", "other", "none", default=5) == [None, 5, None]
        assert await cache.mget() == []
        await cache.mset({})

    async def test_callers_have_values_of_their_own(self, bench: Bench) -> None:
        cache = await bench.cache()
        given: Any = {"roles": ["admin"], "deep": {"er": [[1]]}}
        await cache.set(KEY, given)
        given["roles"].append("mine")
        for _ in range(3):
            found: Any = await cache.get(KEY)
            assert found == {"roles": ["admin"], "deep": {"er": [[1]]}}
            found["roles"].append("mine")
            found["deep"]["er"][0].append(2)

        async def load() -> object:
            return {"list": [1]}

        for _ in range(3):
            loaded: Any = await together(*(cache.wrap("load", load) for _ in range(2)))
            assert loaded == [{"list": [1]}] * 2
            for value in loaded:
                value["list"].append(2)

    async def test_a_value_goes_after_its_ttl(self, bench: Bench) -> None:
        cache = await bench.cache()
        await cache.set(KEY, 1, 1)
        await cache.set("long", 1, timedelta(minutes=1))
        await cache.set("for-ever", 1)
        assert 0 < (await cache.ttl(KEY) or 0) <= 1
        assert 50 < (await cache.ttl("long") or 0) <= 60
        assert await cache.ttl("for-ever") is None

        async def gone() -> bool:
            return await cache.get(KEY, MISSING) is MISSING

        await eventually(gone)
        assert await cache.mget("long", "for-ever") == [1, 1]
        with pytest.raises(KeyError):
            await cache.ttl(KEY)

    async def test_setting_again_begins_anew(self, bench: Bench) -> None:
        cache = await bench.cache(ttl=60)
        await cache.set(KEY, 1, 5)
        await cache.set(KEY, 2)
        assert await cache.get(KEY) == 2
        assert 50 < (await cache.ttl(KEY) or 0) <= 60

    async def test_deleting_says_whether_there_was_a_value(self, bench: Bench) -> None:
        cache = await bench.cache()
        await cache.mset({"a": 1, "b": None}, 60)
        assert await cache.delete("a") is True
        assert await cache.delete("a") is False
        assert await cache.mdel("a", "b", "b", "c") == 1
        assert await cache.mdel() == 0
        assert await cache.mget("a", "b", default=MISSING) == [MISSING, MISSING]

    @pytest.mark.needs("lists_keys")
    @pytest.mark.needs("shared")
    async def test_what_is_much_is_done_in_parts(self, bench: Bench) -> None:
        """So that each has its time, however much there is."""
        cluster = await bench.cluster()
        cache, pauses = await bench.cache(cluster), bench.pauses[cluster.instance_id]
        many: dict[str, object] = {f"k{number}": number for number in range(1200)}
        large: dict[str, object] = {f"l{number}": "x" * 400_000 for number in range(5)}
        for values in (many, large):
            pauses.arm(10**9, after=False)
            await cache.mset(values, 60)
            assert pauses.calls >= 3
            assert await cache.mget(*values) == list(values.values())
        tags = [f"t{number}" for number in range(1000)]
        await cache.set("tagged", 1, 60, tags=tags)
        assert await cache.get("tagged") == 1
        await cache.invalidate_tags(*(f"u{number}" for number in range(1000)), *tags)
        assert await cache.get("tagged") is None
        pauses.arm(10**9, after=False)
        assert await cache.mdel(*many) == len(many)
        assert pauses.calls >= 3

    @pytest.mark.needs("lists_keys")
    async def test_keys_are_those_with_a_value(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        cache = await bench.cache(cluster)
        other = await cluster.caches.create_cache("contract.other", **bench.environment.options)
        await other.set("theirs", 1)
        await cache.mset({"b": 1, "a": None, "ü[?]": 2}, 60)
        await cache.set("gone", 1)
        await cache.delete("gone")
        assert await cache.keys() == ["a", "b", "ü[?]"]

    async def test_long_and_foreign_keys_are_kept_apart(self, bench: Bench) -> None:
        cache = await bench.cache()
        keys = ["ж" * 100, "ж" * 99 + "з", "x" * 200, "x" * 199 + "y", "a:b", "a", "a.b"]
        await cache.mset({key: number for number, key in enumerate(keys)}, 60)
        assert await cache.mget(*keys) == list(range(len(keys)))

    async def test_bad_input_is_refused_alike(self, bench: Bench) -> None:
        cache = await bench.cache()
        for key in BAD_KEYS:
            for call in (cache.get, cache.delete, cache.ttl, cache.incr, cache.mget, cache.mdel):
                with pytest.raises(InvalidNameError):
                    await call(key)
            with pytest.raises(InvalidNameError):
                await cache.set(key, 1)
        for ttl in BAD_TTLS:
            with pytest.raises(ConfigurationError):
                await cache.set(KEY, 1, ttl)
            with pytest.raises(ConfigurationError):
                await cache.incr(KEY, ttl=ttl)
            with pytest.raises(ConfigurationError):
                await cache.wrap(KEY, _nothing, ttl=ttl)
        for value in BAD_VALUES:
            with pytest.raises(EncodeError):
                await cache.set(KEY, value)
        for amount in BAD_AMOUNTS:
            with pytest.raises(ConfigurationError):
                await cache.incr(KEY, amount)
        assert await cache.get(KEY, MISSING) is MISSING
        assert issubclass(ConfigurationError, ValueError)


async def _nothing() -> None: ...
