"""Leases that are read in threads, and functions that run in them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
import pytest_asyncio

from cluster_kit.errors import LockLost, LockTimeout
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.waiting import eventually
from tests.unit.locks_bench import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


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


class Work:
    """A function that runs in a thread until it is let go."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.runs = 0
        self.inside = threading.Event()
        self.let_go = threading.Event()

    def __call__(self) -> str:
        self.runs += 1
        self.inside.set()
        self.let_go.wait(20)
        if self.fails:
            raise LookupError
        return "finished"

    async def begun(self) -> None:
        await asyncio.to_thread(self.inside.wait, 20)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fails", "raised"), [(False, asyncio.CancelledError), (True, LookupError)]
)
async def test_a_cancelled_call_ends_with_its_thread(
    bench: Bench, fails: bool, raised: type[BaseException]
) -> None:
    work = Work(fails=fails)
    running = asyncio.create_task(bench.locks.run_exclusive("a", work))
    await work.begun()
    running.cancel()
    await asyncio.sleep(0.01)
    assert not running.done()
    assert "release" not in bench.adapter.log

    work.let_go.set()
    with pytest.raises(raised):
        await running
    assert bench.adapter.log.count("release") == work.runs == 1


@pytest.mark.asyncio
async def test_a_time_limit_around_a_function_in_a_thread_is_heard_of(bench: Bench) -> None:
    work = Work()
    asyncio.get_running_loop().call_later(0.05, work.let_go.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bench.locks.run_exclusive("a", work)


@pytest.mark.asyncio
async def test_a_thread_that_was_given_up_keeps_its_lock_until_it_ends(bench: Bench) -> None:
    def renewed(times: int) -> bool:
        return bench.adapter.log.count("renew") == times

    work = Work()
    running = asyncio.create_task(bench.locks.run_exclusive("a", work, ttl=30))
    await work.begun()
    for _ in range(2):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running

    for renewals in range(3):
        await bench.clock.advance(12)
        await eventually(partial(renewed, renewals + 1))
    with pytest.raises(LockTimeout):
        await bench.locks.acquire("a", timeout=0)
    assert "release" not in bench.adapter.log

    work.let_go.set()
    await eventually(lambda: bench.adapter.log.count("release") == 1)
    next_one = await asyncio.wait_for(bench.locks.acquire("a"), 20)
    await next_one.release()


@pytest.mark.asyncio
@pytest.mark.parametrize("ends_in_time", [True, False])
async def test_a_stop_frees_no_lock_whose_thread_was_given_up(
    bench: Bench, ends_in_time: bool
) -> None:
    work = Work()
    running = asyncio.create_task(bench.locks.run_exclusive("a", work))
    await work.begun()
    stopping = asyncio.create_task(bench.locks.close(20 if ends_in_time else 0.05))
    await eventually(lambda: running.cancelling() == 1)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "release" not in bench.adapter.log

    if ends_in_time:
        work.let_go.set()
    await asyncio.wait_for(stopping, 10)
    work.let_go.set()
    await bench.supervisor.close()
    assert bench.adapter.log.count("release") == ends_in_time
