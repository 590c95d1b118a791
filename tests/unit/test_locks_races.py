"""What happens when two things happen at once: a stop and a grant, a turn and a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import (
    ConfigurationError,
    LockLost,
    LockTimeout,
    LockUnavailable,
    NotStartedError,
)
from cluster_kit.locks import LeaseState
from cluster_kit.testing.waiting import eventually
from cluster_kit_aiocache.fences import read_fence
from tests.unit.locks_bench import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


@pytest.mark.asyncio
async def test_a_stop_while_a_wait_is_running_out_of_time(bench: Bench) -> None:
    out_of_time, goes_on = asyncio.Event(), asyncio.Event()

    async def hard_to_leave() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            out_of_time.set()
            await goes_on.wait()

    bench.adapter.taken, bench.adapter.while_waiting = True, hard_to_leave
    waiter = asyncio.ensure_future(bench.locks.acquire("a", timeout=0.01))
    await out_of_time.wait()
    closing = asyncio.ensure_future(bench.locks.close())
    await asyncio.sleep(0)
    goes_on.set()

    await closing
    with pytest.raises((LockTimeout, NotStartedError)):
        await waiter


@pytest.mark.asyncio
async def test_a_lease_that_is_over_says_why() -> None:
    async with Cluster("shop") as cluster:
        with pytest.raises(LockLost):
            async with cluster.locks.hold("a", ttl=0.2, renew=False) as lost:
                await asyncio.sleep(60)
        given_back = await cluster.locks.acquire("a")
        await given_back.release()

        for lease, why in ((lost, "lost: its time is over"), (given_back, "it was given back")):
            with pytest.raises(LockLost, match=why):
                lease.check()
            with pytest.raises(LockLost, match=why):
                await lease.extend(1)


@pytest.mark.asyncio
async def test_a_lock_that_is_over_by_the_clock_alone_is_held_by_nobody(bench: Bench) -> None:
    over = await bench.locks.acquire("a", ttl=10, renew=False)
    bench.clock._now += 10

    lease = await bench.locks.acquire("a")

    lease.check()
    assert over.state is LeaseState.LOST


@pytest.mark.asyncio
async def test_a_clean_up_is_not_cut_short_by_the_loss_of_another_lock(bench: Bench) -> None:
    inside, cleaned = asyncio.Event(), False

    async def body() -> None:
        nonlocal cleaned
        async with bench.locks.multi(["a", "b", "c"], max_hold=20) as lease:
            inside.set()
            try:
                await asyncio.sleep(60)
            finally:
                states = {one.state for one in lease.leases.values()}
                for _ in range(3):
                    await asyncio.sleep(0)
                cleaned = states == {LeaseState.LOST}

    task = asyncio.ensure_future(body())
    await inside.wait()
    bench.clock._now += 20
    with pytest.raises(LockLost, match="max_hold"):
        await task

    assert cleaned
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_several_that_are_lost_while_asked_leave_no_cancellation_behind(
    bench: Bench,
) -> None:
    async def body() -> None:
        async with bench.locks.multi(["a", "b", "c"], max_hold=20) as lease:
            bench.clock._now += 20
            assert lease.state is LeaseState.LOST  # all of them are found lost by who asks
            raise RuntimeError("the body gives up")

    with pytest.raises(RuntimeError, match="gives up"):
        await body()
    for _ in range(3):
        await asyncio.sleep(0)  # and is not cancelled here
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_who_is_cancelled_while_the_others_are_given_back_is_cancelled(bench: Bench) -> None:
    inside, gone = asyncio.Event(), asyncio.get_running_loop().create_future()
    bench.adapter.gone = gone

    async def only_the_first_goes() -> None:
        bench.adapter.gone = None if bench.adapter.fence else gone

    async def body() -> None:
        async with bench.locks.multi(["a", "b"], ttl=10):
            inside.set()
            await asyncio.sleep(60)

    bench.adapter.while_asked = only_the_first_goes
    task = asyncio.ensure_future(body())
    await inside.wait()
    bench.adapter.before_answer = lambda what: task.cancel() if what == "release" else None
    gone.set_result("evicted")
    await asyncio.wait({task})

    assert task.cancelled()


@pytest.mark.asyncio
async def test_who_waits_for_one_of_several_locks_hears_of_the_loss_of_another(
    bench: Bench,
) -> None:
    async def body() -> None:
        async with bench.locks.multi(["a", "b"], max_hold=20, timeout=60):
            raise AssertionError("nobody may get here")

    other = await bench.locks.acquire("b")
    task = asyncio.ensure_future(body())
    await eventually(lambda: bench.locks.stats().held == 2)
    bench.clock._now += 20

    async with asyncio.timeout(5):
        with pytest.raises(LockLost, match="'a'"):
            await task
    assert task.cancelling() == 0
    await other.release()


@pytest.mark.asyncio
async def test_without_a_server_nobody_holds_the_lock_of_those_in_line_either(
    bench: Bench,
) -> None:
    def refuse(_: str) -> None:
        raise LockUnavailable("a", "gone")

    bench.adapter.before_answer = refuse
    first = asyncio.ensure_future(bench.locks.acquire("a", timeout=0.5))
    await eventually(lambda: "attempt" in bench.adapter.log)

    for timeout in (0, 0.1):
        with pytest.raises(LockUnavailable, match="gone"):
            await bench.locks.acquire("a", timeout=timeout)
    with pytest.raises(LockUnavailable):
        await first


@pytest.mark.asyncio
async def test_a_server_that_answers_no_more_is_not_somebody_who_holds_the_lock(
    bench: Bench,
) -> None:
    bench.adapter.taken = True
    waiter = asyncio.ensure_future(bench.locks.acquire("a", timeout=0.3))
    await eventually(lambda: "attempt" in bench.adapter.log)

    def refuse(_: str) -> None:
        raise LockUnavailable("a", "gone")

    bench.adapter.before_answer = refuse
    with pytest.raises(LockUnavailable, match=r"gone|no answer"):
        await waiter


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(6))
async def test_what_is_granted_while_it_stops_is_not_kept(bench: Bench, turns: int) -> None:
    granted = asyncio.Event()
    bench.adapter.while_asked = granted.wait
    waiter = asyncio.ensure_future(bench.locks.acquire("a"))
    await eventually(lambda: "attempt" in bench.adapter.log)

    closing = asyncio.ensure_future(bench.locks.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    granted.set()
    await closing

    with suppress(NotStartedError):
        lease = await waiter
        assert lease.state is LeaseState.LOST
    await eventually(lambda: "release" in bench.adapter.log)


@pytest.mark.asyncio
async def test_a_grant_that_came_too_late_ends_nothing_later(bench: Bench) -> None:
    gone = bench.adapter.gone = asyncio.get_running_loop().create_future()
    late = [10.0]

    async def slow() -> None:
        bench.clock._now += late.pop() if late else 0

    bench.adapter.while_asked = slow
    lease = await bench.locks.acquire("a", ttl=5, timeout=20)  # the second grant it got
    bench.adapter.gone = None
    behind = asyncio.ensure_future(bench.locks.acquire("a", timeout=20))
    await eventually(lambda: bench.locks.stats().waiting)

    gone.set_result("its connection is gone")

    other = await behind
    assert lease.state is LeaseState.LOST
    assert bench.locks.stats().lost == 1
    with pytest.raises(LockTimeout):
        await asyncio.ensure_future(bench.locks.acquire("a", timeout=0))
    other.check()


@pytest.mark.asyncio
async def test_a_line_is_forgotten_by_who_leaves_it_at_his_turn(bench: Bench) -> None:
    lease = await bench.locks.acquire("a")
    waiter = asyncio.ensure_future(bench.locks.acquire("a"))
    await eventually(lambda: bench.locks.stats().waiting)

    await lease.release()  # does not let others run: the turn has come, and nobody knows
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter

    assert bench.locks._contention is not None
    assert bench.locks._contention._lines._lines == {}


@pytest.mark.asyncio
async def test_who_enters_the_same_hold_twice_is_told(bench: Bench) -> None:
    hold = bench.locks.hold("a")
    async with hold:
        pass

    with pytest.raises(RuntimeError, match="entered once"):
        await hold.__aenter__()


@pytest.mark.asyncio
async def test_a_semaphore_asks_a_server_that_does_not_answer_but_once(bench: Bench) -> None:
    def refuse(_: str) -> None:
        raise LockUnavailable("shop.a#1", "no answer")

    bench.adapter.before_answer = refuse
    with pytest.raises(LockUnavailable) as found:
        await bench.locks.semaphore("a", 50).acquire(timeout=0)

    assert found.value.key == "a"
    assert bench.adapter.log.count("attempt") == 1


@pytest.mark.asyncio
async def test_the_time_of_a_semaphore_counts_from_the_call(bench: Bench) -> None:
    bench.adapter.while_asked = asyncio.Event().wait
    loop = asyncio.get_running_loop()
    begun = loop.time()

    with pytest.raises(LockUnavailable, match=r"no answer within 0\.1 s"):
        await bench.locks.semaphore("a", 50).acquire(timeout=0.1)

    assert loop.time() - begun < 5


@pytest.mark.asyncio
async def test_a_stop_ends_the_wait_for_a_permit_without_a_word(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.adapter.taken = True
    waiter = asyncio.ensure_future(bench.locks.semaphore("a", 3).acquire())
    await eventually(lambda: bench.locks.stats().waiting == 3)

    await bench.locks.close()

    with pytest.raises(NotStartedError):
        await waiter
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(4))
async def test_a_stop_while_a_semaphore_asks_for_one_permit_after_the_other(
    bench: Bench, turns: int
) -> None:
    bench.adapter.taken = True
    asked = asyncio.Event()

    async def answer_in_the_next_turn() -> None:
        asked.set()
        await asyncio.sleep(0)

    bench.adapter.while_asked = answer_in_the_next_turn
    waiter = asyncio.ensure_future(bench.locks.semaphore("a", 50).acquire(timeout=60))
    await asked.wait()
    for _ in range(turns):
        await asyncio.sleep(0)

    await bench.locks.close()

    with pytest.raises(NotStartedError):
        await asyncio.wait_for(waiter, 20)
    assert bench.adapter.log.count("attempt") < 50


@pytest.mark.asyncio
async def test_two_that_are_lost_together_end_their_body_once(bench: Bench) -> None:
    async def body() -> None:
        async with bench.locks.multi(["a", "b"], ttl=10):
            bench.adapter.ours = False
            await bench.clock.advance(20)
            await asyncio.sleep(60)

    with pytest.raises(LockLost):
        await body()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_a_stop_gives_no_lock_back_whose_body_is_still_inside(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    inside, leaves = asyncio.Event(), asyncio.Event()

    async def body() -> None:
        try:
            inside.set()
            await asyncio.sleep(60)
        finally:
            await leaves.wait()

    running = asyncio.ensure_future(bench.locks.run_exclusive("deaf", body))
    await inside.wait()
    free = await bench.locks.acquire("free")

    await bench.locks.close(0.05)
    released_at_stop = bench.adapter.log.count("release")
    leaves.set()
    with pytest.raises(LockLost):
        await running
    await free.release()

    assert released_at_stop == bench.adapter.log.count("release") == 1  # of what nobody is inside
    assert "'deaf'" in caplog.text
    assert "'free'" not in caplog.records[-1].message


@pytest.mark.asyncio
async def test_a_stop_warns_of_no_lock_that_it_gives_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cluster_kit.locks")
    inside = asyncio.Event()

    async def body() -> None:
        async with cluster.locks.hold("used"):
            inside.set()
            await asyncio.sleep(60)

    async with Cluster("shop") as cluster:
        lease = await cluster.locks.acquire("kept")
        working = asyncio.ensure_future(body())
        await inside.wait()

    with pytest.raises(LockLost, match="'used'"):
        await working
    with pytest.raises(LockLost, match="the cluster stops"):
        lease.check()
    assert lease.lost.is_set()
    told = {record.getMessage().split("'")[1]: record.levelname for record in caplog.records}
    assert told == {"kept": "INFO", "used": "WARNING"}


@pytest.mark.asyncio
async def test_a_stop_awaits_a_body_that_cleans_up_and_gives_its_lock_back(bench: Bench) -> None:
    inside = asyncio.Event()
    cleaned_up = False

    async def body() -> None:
        nonlocal cleaned_up
        try:
            inside.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1.2)
            cleaned_up = True

    running = asyncio.ensure_future(bench.locks.run_exclusive("slow", body))
    await inside.wait()

    await bench.locks.close(20)

    assert cleaned_up
    assert bench.adapter.log.count("release") == 1
    with pytest.raises(LockLost):
        await running


@pytest.mark.asyncio
async def test_what_was_mistaken_is_named(bench: Bench) -> None:
    one: Any = 5
    for keys, text in (("abc", "not one str"), (one, "not one int")):
        with pytest.raises(ConfigurationError, match=f"keys must be several keys.*{text}"):
            async with bench.locks.multi(keys):
                pass
    mistyped: dict[str, Any] = {"tll": 4}
    with pytest.raises(ConfigurationError, match=r"no option 'tll'; did you mean 'ttl'\?"):
        await bench.locks.run_exclusive("a", list[int], **mistyped)
    with pytest.raises(ConfigurationError, match=r"in memory and on Redis.*CLUSTER_KIT_LOCKS__URL"):
        await bench.locks.rate_limit("a", 1, 60).acquire()


@pytest.mark.parametrize(
    "stored",
    [
        b"hello",
        b"nan",
        b"",
        b"-5",
        b"0",
        str(2**53).encode(),
        b"9" * 5000,
        b"1_7",
        True,
        17.0,
        None,
        "17",
    ],
)
def test_a_stored_fence_that_is_none_is_said(stored: object) -> None:
    assert read_fence("shop.a", b"17") == read_fence("shop.a", 17) == 17
    with pytest.raises(LockUnavailable, match="its stored fence is no"):
        read_fence("shop.a", stored)
