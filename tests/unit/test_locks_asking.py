"""Requests that go on when who waits for them has gone."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cluster_kit.errors import LockTimeout, LockUnavailable, NotStartedError
from cluster_kit.testing.waiting import eventually
from tests.unit.locks_bench import Bench, OrderedQuotas


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


async def ends(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_who_hears_nothing_at_his_turn_says_what_was_last_heard(bench: Bench) -> None:
    bench.adapter.taken = True
    bench.adapter.while_waiting = asyncio.Event().wait
    first = asyncio.ensure_future(bench.locks.acquire("a", timeout=60))
    await eventually(lambda: "attempt" in bench.adapter.log)
    bench.adapter.while_asked = asyncio.Event().wait
    second = asyncio.ensure_future(bench.locks.acquire("a", timeout=0.1))
    await eventually(lambda: bench.locks.stats().waiting == 2)

    await ends(first)

    with pytest.raises(LockTimeout):
        await second
    assert bench.adapter.log.count("attempt") == 2


@pytest.mark.asyncio
async def test_behind_one_who_was_not_answered_nobody_is_told_that_somebody_has_it(
    bench: Bench,
) -> None:
    answer = asyncio.Event()
    bench.adapter.while_asked = answer.wait
    first = asyncio.ensure_future(bench.locks.acquire("a", timeout=60))
    await eventually(lambda: "attempt" in bench.adapter.log)

    with pytest.raises(LockUnavailable, match=r"no answer within 0\.05 s"):
        await bench.locks.try_acquire("a", timeout=0.05)
    assert await bench.locks.try_acquire("a") is None  # he does not wait: first is first

    answer.set()
    await first
    assert await bench.locks.try_acquire("a", timeout=0.05) is None


@pytest.mark.asyncio
async def test_the_next_in_line_takes_over_a_request_under_way(bench: Bench) -> None:
    answer = asyncio.Event()
    bench.adapter.while_asked = answer.wait
    leaving = asyncio.ensure_future(bench.locks.acquire("a", timeout=1))
    await eventually(lambda: "attempt" in bench.adapter.log)
    staying = asyncio.ensure_future(bench.locks.acquire("a"))
    await eventually(lambda: bench.locks.stats().waiting == 2)

    await ends(leaving)
    answer.set()
    lease = await staying

    assert bench.adapter.log == ["attempt", "leave"]
    lease.check()
    await lease.release()
    assert bench.adapter.log.count("release") == 1


@pytest.mark.asyncio
async def test_a_request_taken_over_says_no_and_the_next_in_line_asks_for_himself(
    bench: Bench,
) -> None:
    answer = asyncio.Event()
    bench.adapter.taken, bench.adapter.while_asked = True, answer.wait
    leaving = asyncio.ensure_future(bench.locks.acquire("a", timeout=1))
    await eventually(lambda: "attempt" in bench.adapter.log)
    staying = asyncio.ensure_future(bench.locks.acquire("a"))
    await eventually(lambda: bench.locks.stats().waiting == 2)

    await ends(leaving)
    answer.set()
    await eventually(lambda: bench.adapter.log.count("attempt") > 2)
    bench.adapter.taken = False

    lease = await staying
    lease.check()
    assert bench.adapter.log[:3] == ["attempt", "leave", "attempt"]
    assert "release" not in bench.adapter.log


@pytest.mark.asyncio
async def test_a_request_for_another_ttl_is_not_taken_over(bench: Bench) -> None:
    answer = asyncio.Event()
    bench.adapter.while_asked = answer.wait
    leaving = asyncio.ensure_future(bench.locks.acquire("a", ttl=30, timeout=1))
    await eventually(lambda: "attempt" in bench.adapter.log)
    staying = asyncio.ensure_future(bench.locks.acquire("a", ttl=10))
    await eventually(lambda: bench.locks.stats().waiting == 2)

    await ends(leaving)
    answer.set()
    lease = await staying
    await eventually(lambda: "release" in bench.adapter.log)

    assert bench.adapter.log.count("attempt") == 2
    assert lease.valid_for() < 10


@pytest.mark.asyncio
@pytest.mark.parametrize("taken", [True, False])
async def test_what_is_granted_to_nobody_is_freed_at_once(bench: Bench, taken: bool) -> None:
    answer = asyncio.Event()
    bench.adapter.taken, bench.adapter.while_asked = taken, answer.wait
    leaving = asyncio.ensure_future(bench.locks.acquire("a", timeout=1))
    await eventually(lambda: "attempt" in bench.adapter.log)

    await ends(leaving)
    assert bench.adapter.log == ["attempt"]  # it is under way
    answer.set()

    await eventually(lambda: len(bench.adapter.log) == (2 if taken else 3))
    assert bench.adapter.log == ["attempt", "leave", "release"][: len(bench.adapter.log)]
    assert not [task.get_name() for task in bench.supervisor._tasks if "look" in task.get_name()]


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["a cancellation", "a stop"])
async def test_what_one_alone_has_asked_for_is_freed_when_it_is_broken_off(
    bench: Bench, end: str
) -> None:
    bench.adapter.while_asked = asyncio.Event().wait
    asking = asyncio.ensure_future(bench.locks.acquire("a"))
    await eventually(lambda: "attempt" in bench.adapter.log)
    contention = bench.locks._contention

    if end == "a stop":
        await bench.locks.close()
        with pytest.raises(NotStartedError):
            await asking
    else:
        await ends(asking)

    await eventually(lambda: "release" in bench.adapter.log)
    assert bench.adapter.log[:3] == ["attempt", "leave", "release"]
    assert contention is not None
    assert contention._lines._lines == {}


@pytest.mark.asyncio
async def test_all_that_wait_may_go_with_a_request_under_way(bench: Bench) -> None:
    answer = asyncio.Event()
    bench.adapter.while_asked = answer.wait
    tasks = [asyncio.ensure_future(bench.locks.acquire("a")) for _ in range(5)]
    await eventually(lambda: bench.locks.stats().waiting == 5)
    await eventually(lambda: "attempt" in bench.adapter.log)

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    answer.set()

    await eventually(lambda: "release" in bench.adapter.log)
    assert bench.adapter.log == ["attempt", "leave", "release"]
    assert bench.locks._contention is not None
    assert bench.locks._contention._lines._lines == {}


@pytest.mark.asyncio
async def test_each_is_told_by_an_error_of_its_own(bench: Bench) -> None:
    def refuse(_: str) -> None:
        raise LockUnavailable("a", "gone")

    bench.adapter.before_answer = refuse
    first = asyncio.ensure_future(bench.locks.acquire("a", timeout=0.5))
    await eventually(lambda: "attempt" in bench.adapter.log)
    errors = list[LockUnavailable]()

    for timeout in (0, 0, 0, 0.05, 0.05):
        with pytest.raises(LockUnavailable, match="gone") as found:
            await bench.locks.acquire("a", timeout=timeout)
        errors.append(found.value)
    with pytest.raises(LockUnavailable, match="gone"):
        await first

    assert len(set(map(id, errors))) == len(errors)
    frames = [len(list(traceback.walk_tb(error.__traceback__))) for error in errors]
    assert frames[0] == frames[1] == frames[2]


@pytest.mark.asyncio
async def test_the_next_in_line_takes_over_what_counts_for_a_rate_limit(bench: Bench) -> None:
    bench.adapter.quotas = OrderedQuotas(bench.adapter)
    answer, limit = asyncio.Event(), bench.locks.rate_limit("a", 1, 60)
    bench.adapter.while_asked = answer.wait
    leaving = asyncio.ensure_future(limit.acquire())
    await eventually(lambda: "admit" in bench.adapter.log)
    staying = asyncio.ensure_future(limit.acquire())
    await eventually(lambda: bench.locks.stats().waiting == 2)

    await ends(leaving)
    answer.set()
    await staying

    assert bench.adapter.log == ["admit"]
    await limit.acquire()
    assert bench.adapter.log == ["admit"] * 2


@pytest.mark.asyncio
async def test_who_hears_nothing_at_his_turn_says_that_the_limit_was_reached(
    bench: Bench,
) -> None:
    bench.adapter.quotas = OrderedQuotas(bench.adapter)
    bench.adapter.taken = True
    limit = bench.locks.rate_limit("a", 1, 60)
    first = asyncio.ensure_future(limit.acquire())
    await eventually(lambda: "admit" in bench.adapter.log)
    bench.adapter.while_asked = asyncio.Event().wait
    second = asyncio.ensure_future(limit.try_acquire(timeout=0.1))
    await eventually(lambda: bench.locks.stats().waiting == 2)

    await ends(first)

    assert await second is False
    with pytest.raises(LockUnavailable, match="no answer in time"):  # he was told nothing
        await limit.acquire(timeout=0.05)


@pytest.mark.asyncio
@pytest.mark.parametrize("asked", [True, False])
async def test_nothing_is_freed_where_nothing_was_asked(bench: Bench, asked: bool) -> None:
    def refuse(what: str) -> None:
        if what == "attempt":
            raise LockUnavailable("a", "connection refused")

    bench.adapter.asked, bench.adapter.before_answer = asked, refuse

    with pytest.raises(LockUnavailable, match="connection refused"):
        await bench.locks.acquire("a", timeout=0)
    for _ in range(5):
        await asyncio.sleep(0)

    assert bench.adapter.log == ["attempt", "leave", "release"][: 3 if asked else 2]


@pytest.mark.asyncio
async def test_all_whose_time_ends_at_once_are_told_that_the_limit_is_reached(
    bench: Bench,
) -> None:
    bench.adapter.quotas = OrderedQuotas(bench.adapter)
    bench.adapter.taken = True
    limit = bench.locks.rate_limit("a", 1, 60)
    tries = [asyncio.ensure_future(limit.try_acquire(timeout=0.1)) for _ in range(5)]
    over = asyncio.get_running_loop().time() + 0.15
    await eventually(lambda: "admit" in bench.adapter.log)
    for _ in range(5):  # so that it is heard
        await asyncio.sleep(0)

    while asyncio.get_running_loop().time() < over:
        """The loop stands, and finds them all in one pass."""

    assert await asyncio.gather(*tries) == [False] * 5
