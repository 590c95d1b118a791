"""Versions of caches on real servers: what was invalidated stays so, whatever is sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

import pytest

from cluster_kit import Cache
from cluster_kit.cache.envelope import STAMP_BYTES, new_stamp
from cluster_kit.cache.names import Names
from cluster_kit.cache.options import CacheValues
from cluster_kit.cache.remote import Remote
from cluster_kit.errors import CacheUnavailable
from cluster_kit.ports import CacheStore
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually
from integration.test_cache_servers import redis

WAYS: dict[str, Callable[[Cache], Coroutine[object, object, None]]] = {
    "tag": lambda cache: cache.invalidate_tags("t"),
    "reset": lambda cache: cache.reset(),
}
EACH_WAY = pytest.mark.parametrize("way", list(WAYS))


def store_of(cache: Cache) -> CacheStore:
    engine = cache._engine
    assert engine is not None
    assert isinstance(engine.shelf.remote, Remote)
    return engine.shelf.remote._guard._store


async def two(factory: ClusterFactory, *urls: str) -> list[Cache]:
    clusters = [(await factory(cache={"url": url, "timeout": 10}))[0] for url in urls]
    return [await cluster.caches.create_cache("rows", ttl=60) for cluster in clusters]


@pytest.mark.asyncio
@pytest.mark.parametrize("present", [True, False], ids=["replaced", "made"])
async def test_a_version_that_is_sent_twice_is_another_one_then(
    present: bool,
    request: pytest.FixtureRequest,
    cluster_factory: ClusterFactory,
) -> None:
    url, seen = request.getfixturevalue("redis"), set[bytes | None]()
    async with FaultProxy(url) as proxy:
        far, near = map(store_of, await two(cluster_factory, proxy.url, url))
        place = Names(cluster_factory.name, "other").epoch

        async def look() -> bytes | None:
            return (await near.read([place], timeout=5))[0]

        async def renew(store: CacheStore) -> list[bytes | None]:
            return await store.renew([place], new_stamp, present=present, ttl=60, timeout=10)

        if present:
            await near.write({place: b"theepoch"}, ttl=60, timeout=5)
        before = await look()
        proxy.freeze("to_client")
        task = asyncio.get_running_loop().create_task(renew(far))
        seen |= {before, await eventually(look, lambda value: value != before)}
        if present:
            seen.add((await renew(near))[0])
        else:
            await near.remove([place], timeout=5)
        proxy.cut()
        proxy.resume()

        assert await task == [await look()]
        assert await look() not in seen


@pytest.mark.asyncio
@EACH_WAY
async def test_an_invalidation_that_is_carried_out_twice_brings_nothing_back(
    way: str, request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url, rows = request.getfixturevalue("redis"), ["first"]

    async def load() -> str:
        return rows[-1]

    async with FaultProxy(url) as proxy:
        far, near = await two(cluster_factory, proxy.url, url)
        assert await near.wrap("row", load, tags=["t"]) == "first"
        await far.get("row")
        proxy.freeze("to_client")
        task = asyncio.get_running_loop().create_task(WAYS[way](far))
        await eventually(lambda: near.get("row"), lambda value: value is None)
        assert await near.wrap("row", load, tags=["t"]) == "first"
        rows.append("second")
        await WAYS[way](near)
        proxy.cut()
        proxy.resume()
        await task

        assert await near.get("row") is None
        assert await near.wrap("row", load, tags=["t"]) == "second"


@pytest.mark.asyncio
@EACH_WAY
async def test_a_load_stands_on_no_version_that_the_server_lost_meanwhile(
    way: str, request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    """As one that evicts may; there is none to renew then."""
    url = request.getfixturevalue("redis")
    one, other = await two(cluster_factory, url, url)
    names, begun, go = Names(cluster_factory.name, "rows"), asyncio.Event(), asyncio.Event()

    async def load() -> str:
        begun.set()
        await go.wait()
        return "old"

    task = asyncio.get_running_loop().create_task(one.wrap("row", load, tags=["t"]))
    await begun.wait()
    await redis(url, "DEL", names.epoch, names.tag("t"))
    await WAYS[way](other)
    go.set()

    assert await task == "old"
    assert [await cache.get("row") for cache in (one, other)] == [None, None]
    await other.set("row", "new", tags=["t"])
    assert [await cache.get("row") for cache in (one, other)] == ["new", "new"]


@pytest.mark.asyncio
async def test_a_server_that_is_full_is_given_new_versions(
    request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue("redis")
    [cache] = await two(cluster_factory, url)
    names, store = Names(cluster_factory.name, "rows"), store_of(cache)
    places = [names.epoch, names.tag("t")]
    await cache.set("row", 1, tags=["t"])
    before = await store.read(places, timeout=5)
    await redis(url, "CONFIG", "SET", "maxmemory", "1")
    try:
        await cache.invalidate_tags("t", "unknown")
        await cache.reset()
    finally:
        await redis(url, "CONFIG", "SET", "maxmemory", "0")

    after = await store.read([*places, names.tag("unknown")], timeout=5)
    assert [len(mark or b"") for mark in after] == [STAMP_BYTES, STAMP_BYTES, 0]
    assert not {*before} & {*after}


@pytest.mark.asyncio
async def test_counters_begin_anew_once_however_many_were_told(
    request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue("redis")
    async with FaultProxy(url) as early, FaultProxy(url) as late:
        clusters = [
            (await cluster_factory(cache={"url": each, "timeout": 0.5}))[0]
            for each in (early.url, late.url, url)
        ]
        first, second, third = [
            await cluster.caches.create_cache("rows", ttl=60, backplane=True)
            for cluster in clusters
        ]
        for cache in (first, second, third):
            await cache.incr("logins")
        early.refuse()
        late.refuse()
        await first.reset()
        await eventually(lambda: bool(first.stats().unsent and second.stats().unsent))
        early.resume()
        await eventually(lambda: not first.stats().unsent)
        assert await third.incr("logins", 5) == 5

        late.resume()
        await eventually(lambda: not second.stats().unsent)
        assert [await cache.count("logins") for cache in (first, second, third)] == [5, 5, 5]


@pytest.mark.asyncio
async def test_a_reset_that_others_have_carried_out_is_not_carried_out_again(
    request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue("redis")
    async with FaultProxy(url) as proxy:
        [away], [near] = [
            await cluster_factory(cache={"url": each, "timeout": 0.5}) for each in (proxy.url, url)
        ]
        first, second = [
            await cluster.caches.create_cache("rows", ttl=60, backplane=True)
            for cluster in (away, near)
        ]
        for cache in (first, second):
            await cache.incr("logins")
        proxy.refuse()
        await first.reset()
        await eventually(lambda: second.count("logins"), lambda count: count == 0)
        assert await second.incr("logins", 5) == 5
        engine = first._engine
        assert engine is not None
        await eventually(lambda: not engine.shelf.owed.counters)  # it has heard of it

        proxy.resume()
        await eventually(lambda: not first.stats().unsent)
        assert [await cache.count("logins") for cache in (first, second)] == [5, 5]


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "memcached"])
async def test_a_reset_that_several_owe_takes_nothing_back_that_was_counted_since(
    backend: str, request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue(backend)
    async with FaultProxy(url) as near, FaultProxy(url) as far:
        both = [
            (await cluster_factory(cache={"url": each.url, "timeout": 2}))[0]
            for each in (near, far)
        ]
        caches = [await c.caches.create_cache("rows", ttl=60, backplane=True) for c in both]
        for cache in caches:
            await cache.incr("logins", 1000)
        for number in range(3):
            for proxy in (near, far):
                proxy.refuse()
                proxy.cut()
            async with asyncio.TaskGroup() as group:
                for cache in caches[: 1 + number % 2]:
                    group.create_task(cache.reset())
            await eventually(lambda: all(cache.stats().unsent for cache in caches))
            for proxy in (near, far):
                proxy.resume()
            counts = list[int]()
            while not counts or any(cache.stats().unsent for cache in caches):
                for cache in caches:
                    with suppress(CacheUnavailable):
                        counts.append(await cache.incr("logins"))
            assert counts == list(range(1, len(counts) + 1))
            assert await caches[0].count("logins") == len(counts)


@pytest.mark.asyncio
@pytest.mark.parametrize("tags", [(), ("t",)], ids=["plain", "tagged"])
async def test_what_is_invalidated_is_not_read_while_the_store_is_told(
    tags: tuple[str, ...], request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue("redis")
    async with FaultProxy(url) as proxy:
        [cluster] = await cluster_factory(cache={"url": proxy.url, "timeout": 2})
        cache = await cluster.caches.create_cache("rows", ttl=60, backplane=True)
        seen: list[object] = []

        async def read(key: str) -> None:
            while cache.stats().unsent:
                seen.append(await cache.get(key))
                with suppress(KeyError, CacheUnavailable):
                    seen.append(await cache.ttl(key))
                with suppress(CacheUnavailable):
                    assert not await cache.set_value_in_object(key, "a", 1)
                    seen.extend(await cache.keys())

        for number in range(3):
            key = f"k{number}"
            await cache.set(key, {"a": number}, tags=tags)
            proxy.refuse()
            proxy.cut()
            await cache.delete(key)
            assert cache.stats().unsent
            proxy.resume()
            proxy.delay(0.03)
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(read(key))
            proxy.resume()
        assert {*seen} <= {None}


@pytest.mark.asyncio
@pytest.mark.parametrize("before", [True, False], ids=["before the load", "during the load"])
async def test_an_old_value_stands_in_no_longer_than_somebody_can_tell(
    before: bool, request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue("redis")
    async with FaultProxy(url) as proxy:
        [far] = await cluster_factory(cache={"url": proxy.url, "promise_ttl": 3})
        [near] = await cluster_factory(cache={"url": url, "promise_ttl": 3})
        options: CacheValues = {"ttl": 0.2, "fail_safe": 600, "soft_timeout": 0.05, "l1_ttl": 2}
        [cache, other] = [await c.caches.create_cache("rows", **options) for c in (far, near)]
        hanging = asyncio.Event()

        async def load() -> str:
            await hanging.wait()
            return "new"

        async def ask() -> object:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    return await cache.wrap("row", load)
            return None

        await cache.set("row", "old")
        await asyncio.sleep(0.3)  # now it is over
        if before:
            proxy.refuse()
            proxy.cut()
        assert await ask() == "old"
        proxy.refuse()
        proxy.cut()
        await other.delete("row")

        await eventually(ask, lambda value: value is None)
        hanging.set()
