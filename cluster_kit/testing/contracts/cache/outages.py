"""Scenarios: a store that is away, a store that lies, a cache that rests."""

from __future__ import annotations

import asyncio
import os
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cluster_kit.cache import MISSING
from cluster_kit.cache.envelope import Kind, Record, new_stamp, pack
from cluster_kit.clock import SystemClock
from cluster_kit.errors import CacheUnavailable, ConfigurationError, NotStartedError
from cluster_kit.testing.contracts.cache.base import KEY, Scenarios
from cluster_kit.testing.contracts.cache.bench import Row
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.cache.bench import Bench

_RECORD = Record(
    kind=Kind.VALUE,
    epoch=new_stamp(),
    created=1.0,
    ttl=None,
    grace=0.0,
    promised=0.0,
    tags={"t": new_stamp()},
    payload=b'{"a": 1}',
    stamp=new_stamp(),
)
_GOOD = pack(_RECORD)
_EXECUTED: list[str] = []


def execute(what: str) -> None:
    """Note what a store had executed."""
    _EXECUTED.append(what)


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return execute, ("pickled",)


_BOMBS = tuple(pickle.dumps(_Bomb(), protocol) for protocol in (0, pickle.HIGHEST_PROTOCOL))
HOSTILE: tuple[bytes, ...] = (
    b"",
    b"x",
    *_BOMBS,
    b'{"plain": "json"}',
    _GOOD[:40],
    _GOOD[:-1],
    _GOOD[:-3] + b"\xff\xff\xff",
    bytes(4096),
    os.urandom(300),
)


@pytest.mark.asyncio
class OutageScenarios(Scenarios):
    """What holds when something does not."""

    @pytest.mark.needs("raw")
    async def test_bytes_that_are_no_entry_are_misses_and_replaced(self, bench: Bench) -> None:
        cache, row = await bench.cache(), Row()
        await cache.set("warm", 1)
        for number, body in enumerate(HOSTILE):
            key = f"k{number}"
            await bench.environment.put(bench.place(key), body)
            assert await cache.get(key, MISSING) is MISSING
            with pytest.raises(KeyError):
                await cache.ttl(key)
            assert await cache.wrap(key, row.loads()) == {"row": 1}
            assert await cache.get(key) == {"row": 1}
        assert cache.stats().corrupt >= len(HOSTILE)
        assert bench.reports("cache.corrupt", key="k1")
        assert _EXECUTED == []

    @pytest.mark.needs("raw")
    async def test_a_payload_that_is_none_is_a_miss_and_replaced(self, bench: Bench) -> None:
        cache, row, epoch = await bench.cache(l1_size=0), Row(), b"theepoch"
        await bench.environment.put(bench.names.epoch, epoch)
        whole = _RECORD._replace(epoch=epoch, tags={})
        for payload in (b"", b"\xff{{", b"[" * 100_000, b"[" * 900 + b"]" * 900, b"NaN", *_BOMBS):
            body, place = pack(whole._replace(payload=payload)), bench.place(KEY)
            await bench.environment.put(place, body)
            assert await cache.get(KEY) is None
            with pytest.raises(KeyError):
                await cache.ttl(KEY)
            if self.features.lists_keys:
                assert await cache.keys() == []
            assert await cache.set_value_in_object(KEY, "field", 1) is False
            assert await cache.wrap(KEY, row.loads()) == {"row": 1}
            await bench.environment.put(place, body)
            assert await cache.set_value_in_object(KEY, "field", 1, create=True)
            assert await cache.get(KEY) == {"field": 1}
        assert cache.stats().corrupt > 0
        assert _EXECUTED == []

    @pytest.mark.needs("raw")
    @pytest.mark.parametrize("kind", list(Kind))
    async def test_a_promise_that_does_not_end_keeps_nobody(self, bench: Bench, kind: Kind) -> None:
        cache, row, epoch = await bench.cache(fail_safe=60), Row(), b"theepoch"
        await bench.environment.put(bench.names.epoch, epoch)
        now = SystemClock().wall()
        record = _RECORD._replace(kind=kind, epoch=epoch, tags={}, promised=now + 3600)
        over = record._replace(created=now - 1, ttl=0.001, grace=60.0)
        await bench.environment.put(bench.place(KEY), pack(over))
        async with asyncio.timeout(5):
            assert await cache.wrap(KEY, row.loads(), ttl=60) == {"row": 1}
        assert await cache.get(KEY) == {"row": 1}

    @pytest.mark.needs("raw")
    async def test_bytes_that_are_no_version_are_replaced(self, bench: Bench) -> None:
        cache, names = await bench.cache(l1_size=0), bench.names
        for number, body in enumerate((b"", b"x", bytes(20), os.urandom(1000))):
            for place in (names.epoch, names.tag("t")):
                load, key = Row().loads(), f"k{number}"
                await cache.delete(key)
                await bench.environment.put(place, body)
                for _ in range(2):
                    assert await cache.wrap(key, load, ttl=60, tags=["t"]) == {"row": 1}
                assert load.runs == 1
                await bench.environment.put(place, body)
                await cache.set(key, "set", tags=["t"])
                assert await cache.get(key) == "set"
                assert await cache.incr(key) > 0

    @pytest.mark.needs("raw")
    async def test_a_counter_that_is_no_number_begins_anew(self, bench: Bench) -> None:
        cache, epoch = await bench.cache(), b"theepoch"
        await bench.environment.put(bench.names.counted, epoch)
        for number, body in enumerate((b"hello", b"A" * 1000)):
            place = bench.names.counter(f"n{number}", epoch)
            await bench.environment.put(place, body)
            assert await cache.count(f"n{number}") == 0
            assert [await cache.incr(f"n{number}", 2) for _ in range(2)] == [2, 4]
        assert cache.stats().unavailable == 0

    @pytest.mark.needs("link_faults")
    async def test_an_absent_store_is_a_miss_to_readers(self, bench: Bench) -> None:
        cluster = await bench.cluster(timeout=0.3)
        cache, row = await bench.cache(cluster, l1_size=0), Row()
        await cache.set(KEY, "kept")
        async with bench.outage(cluster):
            assert await cache.get(KEY, "default") == "default"
            assert await cache.mget(KEY, "other") == [None, None]
            assert await cache.wrap(KEY, row.loads()) == {"row": 1}
            with pytest.raises(CacheUnavailable):
                await cache.set("other", 1)
            with pytest.raises(CacheUnavailable):
                await cache.incr("count")
            with pytest.raises(CacheUnavailable):
                await cache.ttl(KEY)
            assert cluster.health()["adapters"]["cache"]["status"] != "ok"
        await bench.sees(cache, KEY, "kept")
        await eventually(lambda: cluster.health()["adapters"]["cache"]["status"] == "ok")
        assert cache.stats().unavailable > 0

    @pytest.mark.needs("link_faults", "shared")
    async def test_what_an_absent_store_was_not_told_it_is_told_later(self, bench: Bench) -> None:
        cluster = await bench.cluster(timeout=0.3)
        away, other = await bench.cache(cluster), await bench.cache()
        await other.set(KEY, "old", tags=["t"])
        await other.set("tagged", "old", tags=["t"])
        await bench.sees(away, KEY, "old")
        async with bench.outage(cluster):
            for invalidate in (away.delete(KEY), away.invalidate_tags("t")):
                try:
                    await invalidate
                except CacheUnavailable:
                    assert not bench.environment.options.get("backplane")
            assert away.stats().unsent > 0
            assert await away.mget(KEY, "tagged") == [None, None]
        for cache in (away, other):
            await bench.sees(cache, KEY, None)
            await bench.sees(cache, "tagged", None)
        await eventually(lambda: away.stats().unsent == 0)

    @pytest.mark.needs("link_faults", "shared")
    async def test_what_is_counted_after_a_reset_is_not_taken_back(self, bench: Bench) -> None:
        clusters = [await bench.cluster(timeout=0.3) for _ in range(2)]
        one, two = [await bench.cache(cluster) for cluster in clusters]
        for cache in (one, two):
            await cache.incr(KEY, 100)
        async with bench.outage(clusters[0]), bench.outage(clusters[1]):
            with suppress(CacheUnavailable):
                await one.reset()
            owing = [one]
            if bench.environment.options.get("backplane"):
                owing.append(two)
            await eventually(lambda: all(cache.stats().unsent for cache in owing))
            for cache in owing:
                with pytest.raises(CacheUnavailable):
                    await cache.incr(KEY)
        counts: list[int] = []

        async def all_was_told() -> bool:
            for cache in owing:
                with suppress(CacheUnavailable):
                    counts.append(await cache.incr(KEY))
            return all(not cache.stats().unsent for cache in owing)

        await eventually(all_was_told)
        counts += [await cache.incr(KEY) for cache in owing]
        assert counts == sorted({*counts})
        assert counts[0] < 100

    async def test_a_cache_rests_with_its_cluster(self, bench: Bench) -> None:
        cluster = await bench.cluster(start=False)
        cache = await bench.cache(cluster)
        for _ in range(2):
            with pytest.raises(NotStartedError):
                await cache.get(KEY)
            await cluster.start()
            await cache.set(KEY, 1)
            assert await cache.get(KEY) == 1
            await cluster.stop()
        with pytest.raises(NotStartedError):
            await cache.wrap(KEY, Row().loads())

    async def test_a_cache_is_made_once(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        cache = await bench.cache(cluster, ttl=60)
        assert await bench.cache(cluster, ttl=60) is cache
        assert cluster.caches.get_cache("contract") is cache
        assert cluster.caches.get_cache(cluster.name) is cluster.cache
        namesake = await cluster.caches.create_cache(cluster.name, ttl=60)
        assert cluster.caches.get_cache(cluster.name) is namesake
        await namesake.set(KEY, 1)
        assert await cluster.cache.get(KEY) is None
        with pytest.raises(ConfigurationError):
            await bench.cache(cluster, ttl=61)
        with pytest.raises(ConfigurationError):
            await cluster.caches.create_cache("more", prefix="contract")
        with pytest.raises(ConfigurationError, match="did you mean"):
            cluster.caches.get_cache("contracts")
        with pytest.raises(ConfigurationError):
            await cluster.caches.create_cache("else", store="redes")
