from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from cluster_kit.message import DeadReason
from cluster_kit.testing.clock import FakeClock
from cluster_kit_memory.schedule import Schedule
from tests.unit.memory_bench import QUEUE, Instance, fresh_url, joined, let_run

pytestmark = pytest.mark.asyncio


async def reasons(one: Instance) -> list[tuple[str, DeadReason, float | None]]:
    found: list[tuple[str, DeadReason, float | None]] = []
    for envelope in await one.dead():
        assert envelope.death is not None
        found.append((envelope.id, envelope.death.reason, envelope.death.died_at))
    return found


async def test_a_short_delay_overtakes_a_long_one(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        inbox = await one.consume()
        for delay in (5.0, 1.0, 0.2):
            await one.publish(f"{delay}", delay=delay)
        await let_run()
        assert inbox.ids == []
        await fake_clock.advance(0.2)
        assert inbox.ids == ["0.2"]
        await fake_clock.advance(0.8)
        assert inbox.ids == ["0.2", "1.0"]
        await fake_clock.advance(3.9)
        assert inbox.ids == ["0.2", "1.0"]
        await fake_clock.advance(0.1)
        assert inbox.ids == ["0.2", "1.0", "5.0"]


async def test_equal_delays_keep_their_order(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        await one.publish(*"abcdef", delay=3)
        await fake_clock.advance(3)
        inbox = await one.consume()

        await inbox.holds(*"abcdef")


async def test_delays_pass_on_the_real_clock() -> None:
    loop = asyncio.get_running_loop()
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        started = loop.time()
        await one.publish("late", delay=0.3)
        await one.publish("soon", delay=0.1)
        await inbox.holds("soon", "late")

        assert loop.time() - started >= 0.299


async def test_a_delayed_task_joins_the_end_of_the_line(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        await one.publish("delayed", delay=1)
        await one.publish("1")
        await fake_clock.advance(1)
        await one.publish("2")
        inbox = await one.consume()

        await inbox.holds("1", "delayed", "2")


async def test_a_delay_of_days_is_one_sleeping_task(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        for days in range(30, 0, -1):
            await one.publish(str(days), delay=days * 86400.0)
        assert fake_clock.sleepers == 1
        await fake_clock.advance(86400)

        assert await one.ready() == 1


async def test_delays_outlive_the_instance_that_published(fake_clock: FakeClock) -> None:
    url = fresh_url()
    async with AsyncExitStack() as first_to_leave, AsyncExitStack() as last_to_leave:
        one = await first_to_leave.enter_async_context(joined(url, clock=fake_clock))
        two = await last_to_leave.enter_async_context(joined(url, clock=fake_clock))
        await one.publish("1", delay=5)
        await first_to_leave.aclose()
        await fake_clock.advance(5)

        assert await two.ready() == 1


async def test_delays_outlive_a_supervisor_that_was_closed_first(fake_clock: FakeClock) -> None:
    url = fresh_url()
    async with joined(url, clock=fake_clock) as one, joined(url, clock=fake_clock) as two:
        await two.publish("1", delay=5)
        await one.supervisor.close()
        await let_run()
        await fake_clock.advance(5)

        assert await two.ready() == 1


async def test_a_task_expires_without_any_consumer(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        now = fake_clock.wall()
        await one.publish("3", expires_at=now + 3)
        await one.publish("never")
        await one.publish("1", expires_at=now + 1)
        await fake_clock.advance(1)
        assert await reasons(one) == [("1", DeadReason.EXPIRED, now + 1)]
        await fake_clock.advance(2)

        assert [id_ for id_, _, _ in await reasons(one)] == ["1", "3"]
        assert await one.ready() == 1


async def test_what_is_too_late_already_is_never_handed_out(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        inbox = await one.consume()
        await one.publish("late", expires_at=fake_clock.wall() - 1)
        await one.publish("later", delay=10, expires_at=fake_clock.wall() + 5)
        await fake_clock.advance(10)

        assert [id_ for id_, _, _ in await reasons(one)] == ["late", "later"]
        assert inbox.ids == []


async def test_a_task_in_hand_does_not_expire_until_it_comes_back(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        inbox = await one.consume()
        await one.publish("1", expires_at=fake_clock.wall() + 1)
        await inbox.holds("1")
        await fake_clock.advance(5)
        assert await reasons(one) == []

        await inbox.received[0].give_back()
        assert [id_ for id_, _, _ in await reasons(one)] == ["1"]


async def test_a_returned_task_still_expires_in_time(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        inbox = await one.consume()
        await one.publish("1", expires_at=fake_clock.wall() + 5)
        await inbox.holds("1")
        await inbox.consumer.close()
        await fake_clock.advance(5)

        assert [id_ for id_, _, _ in await reasons(one)] == ["1"]
        assert await one.ready() == 0


async def test_a_purged_task_does_not_expire(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        await one.publish("1", "2", expires_at=fake_clock.wall() + 1)
        assert await one.adapter.purge(QUEUE) == 2
        await fake_clock.advance(2)

        assert await reasons(one) == []


async def test_a_wall_clock_that_is_set_forward_is_noticed(fake_clock: FakeClock) -> None:
    async with joined(fresh_url(), clock=fake_clock) as one:
        await one.publish("1", expires_at=fake_clock.wall() + 7200)
        fake_clock.shift_wall(7200)
        await fake_clock.advance(61)

        assert [id_ for id_, _, _ in await reasons(one)] == ["1"]


async def test_a_schedule_forgets_what_was_cancelled() -> None:
    schedule: Schedule[str] = Schedule()
    for key in range(10_000):
        schedule.add(key, 1000.0 - key, str(key))
        if key != 5000:
            schedule.discard(key)

    assert len(schedule) == 1
    assert len(schedule._heap) < 100
    assert list(schedule.pop_due(1000)) == ["5000"]
    assert schedule.next() is None
