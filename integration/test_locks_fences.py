"""Fences that somebody else has written on the server."""

from __future__ import annotations

import pytest

from cluster_kit.errors import LockUnavailable
from cluster_kit.testing.waiting import eventually
from integration.locks_bench import running
from integration.test_locks_contract import say

KEY = "schema"


@pytest.mark.asyncio
@pytest.mark.parametrize("stored", ["hello", "nan", "1e300", "18446744073709551615"])
async def test_redis_that_keeps_a_fence_that_is_none_grants_nothing_and_says_why(
    redis: str, stored: str
) -> None:
    key = f"fence-{stored}"
    async with running(redis) as cluster:
        say(redis, f"SET ck:lock:{{shop.{key}}}:fence {stored}".encode())
        with pytest.raises(LockUnavailable, match="its stored fence is none of ours"):
            await cluster.locks.try_acquire(key)
        assert await cluster.locks.inspect(key) is None

        say(redis, f"SET ck:lock:{{shop.{key}}} token".encode())
        with pytest.raises(LockUnavailable, match="its stored fence is none of ours"):
            await cluster.locks.inspect(key)


@pytest.mark.asyncio
async def test_fences_grow_also_when_an_older_one_comes_back(redis: str) -> None:
    async with running(redis) as cluster:
        async with cluster.locks.hold("snapshot") as lease:
            before = lease.fence
        # As after a restart from a snapshot, or a failover to a replica that was behind.
        say(redis, f"SET ck:lock:{{shop.snapshot}}:fence {before - 10}".encode())
        async with cluster.locks.hold("snapshot", timeout=10) as lease:
            assert lease.fence > before


@pytest.mark.asyncio
@pytest.mark.parametrize("stored", ["9007199254740991", "1_000", "+5_0"])
async def test_redis_that_keeps_a_fence_only_python_takes_for_one_grants_it_to_nobody(
    redis: str, stored: str
) -> None:
    key = f"fence-{stored}"
    say(redis, f"SET ck:lock:{{shop.{key}}}:fence {stored}".encode())
    async with running(redis) as one, running(redis) as two:
        for cluster in (one, two):
            with pytest.raises(LockUnavailable, match="its stored fence is none of ours"):
                await cluster.locks.try_acquire(key)


@pytest.mark.asyncio
async def test_memcached_whose_counter_somebody_has_set_grants_nothing_and_says_why(
    memcached: str,
) -> None:
    async with running(memcached) as cluster:
        said = say(memcached, b"set ck.f.shop.schema 0 0 20\r\n%d" % (2**64 - 2))
        assert said == b"STORED\r\n"
        for _ in range(4):  # and over its end, from which it goes on with 0
            with pytest.raises(LockUnavailable, match="its stored fence is none of ours"):
                await cluster.locks.try_acquire(KEY)
            await eventually(lambda: say(memcached, b"mg ck.l.shop.schema") == b"EN\r\n")

        assert say(memcached, b"delete ck.f.shop.schema") == b"DELETED\r\n"
        async with cluster.locks.hold(KEY, timeout=10) as lease:
            assert lease.fence > 10**15
