"""Requests for permits, of which one is enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cluster_kit.errors import LockUnavailable
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
