from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cluster_kit.ports import Quota
from cluster_kit.testing.clock import FakeClock
from cluster_kit_memory.lock_table import LockTable


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
    assert at(13.5, "c") == 0  # counted already
    assert [at(14, "d"), at(19, "e")] == [0, 1]


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
