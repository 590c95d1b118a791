from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.ports import Claim, Quota
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.lock_table import LockTable, Place


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def table(clock: FakeClock) -> Iterator[LockTable]:
    loop = asyncio.new_event_loop()
    yield LockTable("a", loop, clock)
    loop.close()


def quota(number: int, *, limit: int = 2) -> Quota:
    return Quota(name=f"shop.{number}", limit=limit, period=10.0)


def test_a_quota_slides_to_the_moment(table: LockTable, clock: FakeClock) -> None:
    def at(moment: float, token: str) -> float:
        clock._now = moment
        return table.admit(quota(1), token)

    assert [at(0, "a"), at(4, "b")] == [0, 0]
    assert [at(4, "c"), at(9.5, "c")] == [6, 0.5]
    assert [at(10, "c"), at(10, "d")] == [0, 4]  # in (0, 10] there were two
    assert at(13.5, "c") == 0  # let in only now: nobody heard it at 10
    assert [at(14, "d"), at(19, "e")] == [0, 4.5]


def test_quotas_nobody_uses_are_forgotten(table: LockTable, clock: FakeClock) -> None:
    for number in range(20_000):
        clock._now += 0.1
        assert table.admit(quota(number), "a") == 0

    assert len(table._counted) < 3000
    assert table.admit(quota(19_999), "b") == 0
    assert table.admit(quota(19_999), "c") > 0


def test_a_large_quota_is_counted_quickly(table: LockTable, clock: FakeClock) -> None:
    large = quota(1, limit=10_000)
    for number in range(30_000):
        clock._now += 0.0011
        table.admit(large, str(number))

    assert len(table._counted["shop.1"].at) in range(9_000, 10_001)


def claim(name: str, token: str, ttl: float = 10.0) -> Claim:
    return Claim(name=name, token=token, owner="", ttl=ttl)


def test_locks_that_ended_are_forgotten(table: LockTable, clock: FakeClock) -> None:
    for number in range(20_000):
        clock._now += 0.1
        assert table.take(Place(claim(f"shop.{number}", "a"))) is not None
        if number % 3 == 0:
            assert table.find(f"shop.{number - 200}") is None
            assert not table.free(claim(f"shop.{number - 300}", "a"))

    assert len(table._locks) < 3000
    assert table.take(Place(claim("shop.19999", "b"))) is None


def test_who_is_next_hears_of_every_other_end_of_the_lock(table: LockTable) -> None:
    first, second, third = (Place(claim("shop.a", token)) for token in "abc")
    assert table.take(first) is not None
    assert table.take(second) is table.take(third) is None

    def woken() -> list[bool]:
        found = [place.woken.is_set() for place in (second, third)]
        second.woken.clear()
        third.woken.clear()
        return found

    assert table.renew(claim("shop.a", "a", 20.0))
    assert woken() == [False, False]
    assert table.renew(claim("shop.a", "a", 1.0))
    assert woken() == [True, False]
    assert table.free(first.claim)
    assert woken() == [True, False]
    assert table.take(second) is not None
    assert woken() == [False, True]


@pytest.mark.asyncio
async def test_each_in_line_has_a_lock_when_the_one_before_lets_it_run_out() -> None:
    settings = Settings(locks={"url": "memory://ends"})
    async with Cluster("shop", settings=settings) as one, Cluster("shop", settings=settings) as two:
        taken: list[int] = []

        async def take(number: int) -> None:
            cluster = two if number % 2 else one
            await cluster.locks.acquire("a", ttl=0.1, renew=False, timeout=30)
            taken.append(number)

        await take(0)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for number in range(1, 6):
                group.create_task(take(number))
        assert sorted(taken) == [0, 1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_fences_go_on_growing_after_a_restart() -> None:
    begun = time.time_ns() // 1000 - 1
    fences = [begun]
    for _ in range(3):  # each ends the hub of the one before
        async with Cluster("shop", settings=Settings()) as cluster:
            for _ in range(2):
                async with cluster.locks.hold("a") as lease:
                    fences.append(lease.fence)

    assert fences == sorted(set(fences))


def test_fences_go_on_growing_when_the_wall_clock_goes_back(clock: FakeClock) -> None:
    fences: list[int] = []
    for _ in range(3):
        loop = asyncio.new_event_loop()
        held = LockTable("a", loop, clock).take(Place(claim("shop.a", "a")))
        loop.close()
        assert held is not None
        fences.append(held.fence)
        clock.shift_wall(-3600)

    assert fences == sorted(set(fences))


@pytest.mark.asyncio
async def test_a_try_does_not_overtake_who_is_next_in_line_for_a_rate_limit() -> None:
    async with Cluster("shop", settings=Settings()) as cluster:
        limit = cluster.locks.rate_limit("a", 2, 0.3)
        tried: list[bool] = []

        async def one_more() -> None:
            await limit.acquire(timeout=20)
            tried.append(await limit.try_acquire())

        for _ in range(2):
            assert await limit.try_acquire()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):  # who may enter at the same moment
                group.create_task(one_more())
        assert tried == [False] * 2

        await eventually(limit.try_acquire)  # nobody waits any more
