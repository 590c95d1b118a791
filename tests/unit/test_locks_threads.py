"""Leases that are read in threads, and functions that run in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from cluster_kit.errors import LockLost
from cluster_kit.locks import Lease, LeaseState
from tests.unit.locks_bench import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.locks.close()
    assert await bench.supervisor.close() == []


READINGS: dict[str, Callable[[Lease], object]] = {
    "check": lambda lease: lease.check(),
    "fence": lambda lease: lease.fence,
    "state": lambda lease: lease.state,
    "valid_for": lambda lease: lease.valid_for(),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", READINGS)
async def test_a_thread_may_be_the_first_to_see_the_end_of_a_lease(bench: Bench, name: str) -> None:
    inside = asyncio.Event()
    held: list[Lease] = []

    async def body() -> None:
        async with bench.locks.hold("a", renew=False) as lease:
            held.append(lease)
            inside.set()
            await asyncio.sleep(3600)

    holder = asyncio.create_task(body())
    await inside.wait()
    [lease] = held
    before = await asyncio.to_thread(lambda: (lease.state, lease.fence, lease.valid_for() > 0))
    assert before == (LeaseState.HELD, lease.fence, True)

    await bench.clock.advance(31)
    if name in {"check", "fence"}:
        with pytest.raises(LockLost, match="its time is over"):
            await asyncio.to_thread(READINGS[name], lease)
    else:
        assert await asyncio.to_thread(READINGS[name], lease) in {LeaseState.LOST, 0.0}

    with pytest.raises(LockLost, match="lost while in use: its time is over"):
        await asyncio.wait_for(holder, 20)
    assert bench.locks.stats().lost == 1
    next_one = await asyncio.wait_for(bench.locks.acquire("a"), 20)  # nobody stands in its way
    await next_one.release()


@pytest.mark.asyncio
async def test_what_a_thread_was_told_is_lost_stays_lost(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", renew=False)
    await bench.clock.advance(31)
    states = await asyncio.to_thread(lambda: [lease.state for _ in range(3)])

    await asyncio.wait_for(lease.lost.wait(), 20)
    assert [*states, lease.state] == [LeaseState.LOST] * 4
    assert bench.locks.stats().lost == 1
