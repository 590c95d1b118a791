from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from cluster_kit.supervisor import Supervisor

pytestmark = pytest.mark.asyncio

USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_has_its_name_and_gives_its_result() -> None:
    async def work() -> int:
        return 7

    task = Supervisor().spawn(work(), name="count")

    assert task.get_name() == "count"
    assert await task == 7


async def test_a_failure_nobody_awaits_is_logged_with_the_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise LookupError("no such shelf")

    await asyncio.wait({Supervisor().spawn(work(), name="shelf-keeper")})
    await asyncio.sleep(0)

    [record] = caplog.records
    assert record.getMessage() == "background task shelf-keeper failed"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no such shelf"


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor()
    supervisor.spawn(forever(), name="waits")

    assert await supervisor.close() == []
    assert caplog.records == []


async def test_tasks_stay_referenced_while_they_run() -> None:
    supervisor, done = Supervisor(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        gc.collect()
        done.set()

    supervisor.spawn(work(), name="unreferenced")
    gc.collect()

    async with asyncio.timeout(5):
        await done.wait()


# --- close ---


async def test_close_names_what_ignores_its_cancellation() -> None:
    supervisor, release = Supervisor(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    for name in ("second", "first"):
        supervisor.spawn(stubborn(), name=name)
    supervisor.spawn(forever(), name="obeys")
    await asyncio.sleep(0)

    assert await supervisor.close(timeout=0.01) == ["first", "second"]
    release.set()
    assert await supervisor.close() == []


async def test_close_waits_for_cleanup_and_may_be_repeated() -> None:
    supervisor, cleaned = Supervisor(), asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    supervisor.spawn(work(), name="tidy")
    await asyncio.sleep(0)

    assert await supervisor.close() == []
    assert cleaned.is_set()
    assert await supervisor.close() == []


async def test_a_task_may_close_its_own_supervisor() -> None:
    supervisor = Supervisor()
    task = supervisor.spawn(supervisor.close(), name="closer")
    other = supervisor.spawn(forever(), name="other")

    async with asyncio.timeout(5):
        assert await task == []
    assert other.cancelled()


# --- run_all ---


async def test_run_all_returns_results_and_errors_in_order() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(number: int) -> int:
        await gates[number].wait()
        if number == 1:
            raise ValueError("one")
        if number:
            gates[number - 1].set()
        return number

    gates[2].set()
    results = asyncio.create_task(
        Supervisor().run_all([partial(work, number) for number in range(3)], limit=3)
    )
    await asyncio.sleep(0)
    gates[0].set()

    async with asyncio.timeout(5):
        first, failed, last = await results
    assert (first, last) == (0, 2)
    assert repr(failed) == "ValueError('one')"


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (3, 3), (50, 10)])
async def test_run_all_keeps_its_limit(limit: int, expected: int) -> None:
    running = peak = 0

    async def work() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1

    await Supervisor().run_all([work] * 10, limit=limit)

    assert (running, peak) == (0, expected)


async def test_run_all_of_nothing_is_nothing() -> None:
    nothing: list[Callable[[], Awaitable[None]]] = []

    assert await Supervisor().run_all(nothing, limit=5) == []


async def test_cancelling_run_all_cancels_and_awaits_what_runs_and_starts_no_more() -> None:
    started, ended = 0, 0
    two_run = asyncio.Event()

    async def work() -> None:
        nonlocal started, ended
        started += 1
        if started == 2:
            two_run.set()
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended += 1

    task = asyncio.create_task(Supervisor().run_all([work] * 5, limit=2))
    async with asyncio.timeout(5):
        await two_run.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert (started, ended) == (2, 2)


# --- threads ---


async def test_a_thread_gives_its_result_and_bears_the_name() -> None:
    name = await Supervisor().run_in_thread(lambda: threading.current_thread().name, name="mails:1")

    assert name == "mails:1"


async def test_a_thread_does_not_keep_the_process_from_ending() -> None:
    assert await Supervisor().run_in_thread(
        lambda: threading.current_thread().daemon, name="daemon"
    )


async def test_an_error_of_a_thread_reaches_the_caller() -> None:
    def work() -> None:
        raise LookupError("no such shelf")

    with pytest.raises(LookupError, match=r"^no such shelf$"):
        await Supervisor().run_in_thread(work, name="shelf")


async def test_stop_iteration_cannot_travel_and_arrives_as_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match=r"^shelf raised StopIteration\(\)$"):
        await Supervisor().run_in_thread(lambda: next(iter(())), name="shelf")


async def test_a_thread_that_gives_up_by_its_signal_is_cancelled() -> None:
    def work() -> None:
        raise asyncio.CancelledError("timeout")

    with pytest.raises(asyncio.CancelledError):
        await Supervisor().run_in_thread(work, name="obeys")


async def test_context_variables_go_into_the_thread_and_not_back() -> None:
    USER.set("anna")

    def work() -> str:
        seen = USER.get()
        USER.set("thread")
        return seen

    assert await Supervisor().run_in_thread(work, name="context") == "anna"
    assert USER.get() == "anna"


@pytest.mark.parametrize("fails", [False, True])
async def test_after_one_cancellation_what_the_function_returns_still_counts(fails: bool) -> None:
    release, runs = threading.Event(), threading.Event()

    def work() -> str:
        runs.set()
        release.wait(20)
        if fails:
            raise LookupError
        return "finished"

    task = asyncio.create_task(Supervisor().run_in_thread(work, name="slow"))
    await asyncio.to_thread(runs.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()

    release.set()
    if fails:
        with pytest.raises(LookupError):
            await task
    else:
        assert await task == "finished"


async def test_a_second_cancellation_gives_the_thread_up(caplog: pytest.LogCaptureFixture) -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(20)
        ended.set()

    task = asyncio.create_task(Supervisor().run_in_thread(work, name="slow"))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await asyncio.to_thread(ended.wait, 20)
    assert caplog.records == []


def end_after_its_loop(ended: threading.Event) -> None:
    """Leave a thread behind in an event loop that closes."""
    release, runs = threading.Event(), threading.Event()

    def work() -> None:
        runs.set()
        release.wait(20)

    async def main() -> None:
        task = asyncio.create_task(Supervisor().run_in_thread(work, name="late"))
        await asyncio.to_thread(runs.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(main())
    thread = next(t for t in threading.enumerate() if t.name == "late")
    release.set()
    thread.join(20)
    ended.set()


async def test_a_thread_that_outlives_its_loop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    await asyncio.to_thread(end_after_its_loop, ended)

    assert ended.is_set()
    assert [r.getMessage() for r in caplog.records] == ["thread late ended after its event loop"]
