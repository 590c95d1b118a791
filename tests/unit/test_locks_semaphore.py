"""Requests for permits, of which one is enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cluster_kit.errors import LockTimeout, LockUnavailable
from cluster_kit.testing.waiting import eventually
from tests.unit.locks_bench import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


class Gate:
    """Keeps answers back, and notes what is broken off meanwhile."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.broken_off = 0

    async def __call__(self) -> None:
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise


@pytest.mark.asyncio
async def test_what_another_permit_makes_needless_is_not_broken_off(bench: Bench) -> None:
    taken, first, others = Gate(), Gate(), Gate()
    gates = [taken] * 3 + [first] + [others] * 2  # asked one by one, then all together

    async def answer() -> None:
        await gates.pop(0)()

    taken.open.set()
    bench.adapter.taken, bench.adapter.while_asked = True, answer
    waiter = asyncio.ensure_future(bench.locks.semaphore("a", 3).acquire(timeout=60))
    await eventually(lambda: not gates)
    bench.adapter.taken = False

    first.open.set()
    lease = await waiter
    for _ in range(5):
        await asyncio.sleep(0)
    assert others.broken_off == 0
    others.open.set()

    await eventually(lambda: bench.adapter.log.count("release") == 2)
    lease.check()
    assert bench.adapter.log.count("attempt") == 6


@pytest.mark.asyncio
async def test_what_is_not_answered_in_time_is_not_broken_off(bench: Bench) -> None:
    gate = Gate()
    bench.adapter.while_asked = gate

    with pytest.raises(LockUnavailable, match=r"no answer within 0\.05 s"):
        await bench.locks.semaphore("a", 3).acquire(timeout=0.05)
    assert gate.broken_off == 0
    gate.open.set()

    await eventually(lambda: "release" in bench.adapter.log)


@pytest.mark.asyncio
@pytest.mark.parametrize("permits", [1, 3])
@pytest.mark.parametrize("heard_of", ["all", "all but one"])
async def test_permits_are_taken_where_that_was_heard_of_each_before_the_time_ends(
    bench: Bench, permits: int, heard_of: str
) -> None:
    answered, unanswered = Gate(), Gate()
    answered.open.set()
    answers = permits if heard_of == "all" else permits - 1

    async def answer() -> None:
        asked = bench.adapter.log.count("attempt")
        await (answered if asked <= answers else unanswered)()

    bench.adapter.taken, bench.adapter.while_asked = True, answer
    told = LockTimeout if heard_of == "all" else LockUnavailable  # else one may be free

    with pytest.raises(told, match=f"all {permits} permits were taken|no answer"):
        await bench.locks.semaphore("a", permits).acquire(timeout=0.1)
    unanswered.open.set()


@pytest.mark.asyncio
async def test_permits_are_not_taken_where_an_error_was_heard_last(bench: Bench) -> None:
    def refuse(what: str) -> None:
        if what == "attempt" and bench.adapter.log.count(what) > 1:
            raise LockUnavailable("a", "gone")

    bench.adapter.taken, bench.adapter.before_answer = True, refuse

    with pytest.raises(LockUnavailable, match="gone"):
        await bench.locks.semaphore("a", 3).acquire(timeout=0.1)


@pytest.mark.asyncio
async def test_permits_are_not_taken_where_only_somebody_here_asked_for_them(bench: Bench) -> None:
    gate, semaphore = Gate(), bench.locks.semaphore("a", 1)
    bench.adapter.while_asked = gate
    first = asyncio.ensure_future(semaphore.acquire(timeout=60))
    await eventually(lambda: "attempt" in bench.adapter.log)

    with pytest.raises(LockUnavailable, match="no answer within"):
        await semaphore.acquire(timeout=0.05)

    assert await semaphore.try_acquire() is None
    gate.open.set()
    await first


@pytest.mark.asyncio
async def test_who_has_too_little_time_for_one_after_the_other_asks_for_all_at_once(
    bench: Bench,
) -> None:
    together = Gate()
    bench.adapter.taken = True

    async def answer() -> None:
        asked = bench.adapter.log.count("attempt")
        if asked == 1:  # so long does an answer take
            await bench.clock.advance(0.05)
            return
        bench.adapter.taken = False
        if asked == 31:
            together.open.set()
        await together()

    bench.adapter.while_asked = answer

    lease = await bench.locks.semaphore("a", 30).acquire(timeout=1)

    lease.check()
    await eventually(lambda: bench.adapter.log.count("release") == 29)
