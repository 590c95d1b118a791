from __future__ import annotations

import asyncio

import pytest

from cluster_kit.clock import Clock
from cluster_kit.testing.clock import FakeClock

pytestmark = pytest.mark.asyncio


async def test_sleepers_wake_in_the_order_of_their_time(fake_clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await fake_clock.sleep(seconds)
        woken.append((name, fake_clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
            group.create_task(sleep(name, seconds))
        never = group.create_task(sleep("never", 99.0))
        await fake_clock.advance(0.5)
        assert (woken, fake_clock.sleepers) == ([], 4)

        await fake_clock.advance(3.0)
        assert woken == [("early", 1.0), ("middle", 2.0), ("late", 3.0)]
        assert fake_clock.monotonic() == 3.5
        never.cancel()


async def test_a_woken_sleeper_that_sleeps_again_is_woken_again(fake_clock: FakeClock) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await fake_clock.sleep(1)
            ticks.append(fake_clock.monotonic())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(tick())
        await fake_clock.advance(3.5)
        task.cancel()

    assert ticks == [1.0, 2.0, 3.0]


async def test_the_wall_clock_follows_and_can_be_set(fake_clock: FakeClock) -> None:
    clock: Clock = fake_clock
    begun = clock.wall()
    await fake_clock.advance(2)
    assert clock.wall() == begun + 2

    fake_clock.shift_wall(-3600)
    assert clock.wall() == begun - 3598
    assert clock.monotonic() == 2


async def test_a_cancelled_sleeper_harms_nobody(fake_clock: FakeClock) -> None:
    async with asyncio.TaskGroup() as group:
        gone, stays = (group.create_task(fake_clock.sleep(1)) for _ in range(2))
        await fake_clock.advance(0)
        gone.cancel()
        await fake_clock.advance(1)
    assert (gone.cancelled(), stays.cancelled(), fake_clock.sleepers) == (True, False, 0)


async def test_no_time_passes_for_a_sleep_of_nothing(fake_clock: FakeClock) -> None:
    await fake_clock.sleep(0)
    assert fake_clock.monotonic() == 0
    with pytest.raises(ValueError, match="back"):
        await fake_clock.advance(-1)
