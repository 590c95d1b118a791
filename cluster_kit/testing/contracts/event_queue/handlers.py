"""Scenarios: what a handler may be, and what it may do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel

from cluster_kit.message import Delivery, Reject
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench, happens_within
from cluster_kit.testing.recorder import Recorder, answers
from cluster_kit.testing.waiting import eventually


class _Mail(BaseModel):
    to: str
    copies: int = 1


@dataclass
class _Order:
    number: int


_asked: set[str] = set()


def _look_up(name: str) -> str:
    """Fail the first time a name is asked for, as a directory that is away for a moment."""
    if name not in _asked:
        _asked.add(name)
        raise ConnectionError("the directory is away")
    return name


class _Account(BaseModel):
    name: Annotated[str, AfterValidator(_look_up)]


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _cancel_itself() -> None:
    _this_task().cancel()
    await asyncio.Event().wait()


async def _be_cancelled_by_a_timer() -> None:
    asyncio.get_running_loop().call_later(0.01, _this_task().cancel)
    await asyncio.Event().wait()


async def _be_cancelled_by_a_child() -> None:
    parent = _this_task()

    async def cancel() -> None:
        parent.cancel()

    async with asyncio.TaskGroup() as group:
        group.create_task(cancel())
        await asyncio.Event().wait()


async def _exit_as_a_generator() -> None:
    raise GeneratorExit


@pytest.mark.asyncio
class HandlerScenarios(Scenarios):
    """Async and sync, annotated or not, well-behaved or not."""

    async def test_a_sync_handler_runs_in_a_thread_and_does_not_block_the_loop(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        release = threading.Event()
        threads: list[int] = []

        def handle(_payload: object) -> None:
            threads.append(threading.get_ident())
            release.wait(15)

        cluster.event_queue.subscribe(CHANNEL, handle, concurrency=2)
        await cluster.event_queue.publish_many(CHANNEL, [1, 2])
        await eventually(lambda: len(threads) == 2)  # both at once, and the loop still turns
        assert threading.get_ident() not in threads

        release.set()
        await bench.settled(CHANNEL, cluster)
        assert cluster.event_queue.stats()[CHANNEL].done == 2

    async def test_a_sync_handler_that_raises_is_retried(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        attempts: list[int] = []

        def handle(_payload: object, delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            if delivery.attempt < 3:
                raise ValueError("not yet")

        cluster.event_queue.subscribe(CHANNEL, handle, retry=AT_ONCE)
        await cluster.event_queue.publish(CHANNEL, 1)

        await eventually(lambda: len(attempts) == 3)
        assert attempts == [1, 2, 3]

    async def test_a_thread_sees_the_signal_of_its_timeout(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[tuple[bool, str]] = []

        def handle(_payload: object, delivery: Delivery) -> None:
            aborted = delivery.signal.wait_in_thread(15)
            seen.append((aborted, delivery.signal.reason))

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3, max_retries=0)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert seen == [(True, "timeout")]
        assert letter.reason == "failed"

    async def test_a_model_annotation_is_what_the_handler_gets(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        async def handle(mail: _Mail) -> None:
            seen.append(mail)

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, {"to": "ann", "copies": 2})
        await cluster.event_queue.publish(CHANNEL, _Mail(to="bob"))

        await eventually(lambda: len(seen) == 2)
        assert seen == [_Mail(to="ann", copies=2), _Mail(to="bob")]

    async def test_a_dataclass_annotation_is_what_the_handler_gets(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        def handle(order: _Order, _delivery: Delivery) -> None:
            seen.append(order)

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, {"number": 17})

        await eventually(lambda: seen)
        assert seen == [_Order(17)]

    async def test_a_payload_against_the_annotation_is_dead_without_a_run(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        async def handle(mail: _Mail) -> None:
            seen.append(mail)

        cluster.event_queue.subscribe(CHANNEL, handle)
        bad = await cluster.event_queue.publish(CHANNEL, {"to": "ann", "copies": "many"})
        await cluster.event_queue.publish(CHANNEL, {"to": "bob"})

        [letter] = await bench.dead(cluster, CHANNEL)
        await eventually(lambda: seen)
        assert seen == [_Mail(to="bob")]
        assert (letter.id, letter.reason, letter.attempts) == (bad, "undecodable", 0)
        assert letter.payload == {"to": "ann", "copies": "many"}
        assert "copies" in letter.error_text

    async def test_a_handler_that_exits_does_not_take_the_worker_with_it(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(SystemExit(3)))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, max_retries=0)

        bad = await cluster.event_queue.publish(CHANNEL, "exit")
        good = await cluster.event_queue.publish(CHANNEL, "go on")

        await recorder.finished(2)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert recorder.ids == [bad, good]
        assert (letter.id, letter.reason, letter.error_type) == (bad, "failed", "SystemExit")

    async def test_a_handler_cancelled_from_within_has_failed(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(asyncio.CancelledError()))
        policy = AT_ONCE
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy, max_retries=0)

        bad = await cluster.event_queue.publish(CHANNEL, "cancelled")
        good = await cluster.event_queue.publish(CHANNEL, "go on")

        await recorder.finished(2)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert recorder.ids == [bad, good]
        assert letter.id == bad

    @pytest.mark.parametrize(
        "end",
        [_cancel_itself, _be_cancelled_by_a_timer, _be_cancelled_by_a_child, _exit_as_a_generator],
    )
    async def test_a_handler_that_ends_its_own_task_fails_like_any_other(
        self, bench: Bench, end: Callable[[], Awaitable[None]]
    ) -> None:
        async def answer(payload: object, _delivery: Delivery) -> None:
            if payload == "bad":
                await end()

        cluster, recorder = await bench.cluster(), Recorder(answer)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE, max_retries=1)

        bad = await cluster.event_queue.publish(CHANNEL, "bad")
        [letter] = await bench.dead(cluster, CHANNEL)
        await cluster.event_queue.publish(CHANNEL, "go on")

        await recorder.finished(3)
        await bench.settled(CHANNEL, cluster)
        assert recorder.payloads == ["bad", "bad", "go on"]
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2, 1]
        assert (letter.id, letter.reason, letter.attempts) == (bad, "failed", 2)

    @pytest.mark.parametrize(("end", "dead"), [(None, 0), (Reject("no"), 1), (ValueError("no"), 1)])
    async def test_a_cancellation_a_handler_leaves_behind_does_not_reach_its_outcome(
        self, bench: Bench, end: Exception | None, dead: int
    ) -> None:
        async def answer(payload: object, _delivery: Delivery) -> None:
            if payload == "cancels":
                _this_task().cancel()  # delivered at the next await, and there is none
                if end is not None:
                    raise end

        cluster, recorder = await bench.cluster(), Recorder(answer)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, max_retries=0)
        await cluster.event_queue.publish(CHANNEL, "cancels")
        await cluster.event_queue.publish(CHANNEL, "go on")

        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert recorder.payloads == ["cancels", "go on"]
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == dead

    async def test_a_validator_that_fails_for_another_reason_is_a_failed_attempt(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        seen: list[tuple[str, int]] = []

        async def handle(account: _Account, delivery: Delivery) -> None:
            seen.append((account.name, delivery.attempt))

        cluster.event_queue.subscribe(CHANNEL, handle, retry=AT_ONCE)
        published = await cluster.event_queue.publish(CHANNEL, {"name": bench.app})

        retried = await bench.reported("task.retried", id=published)
        await bench.reported("task.done", id=published)
        assert isinstance(retried["error"], ConnectionError)
        assert seen == [(bench.app, 2)]
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    async def test_an_error_whose_text_fails_is_still_recorded(self, bench: Bench) -> None:
        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        cluster = await bench.cluster()
        recorder = Recorder(answers(UnspeakableError()))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=0)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert letter.id == published
        assert "UnspeakableError" in letter.error_type

    async def test_a_handler_may_wait_for_its_signal(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        heard = asyncio.Event()
        reasons: list[str] = []

        async def handle(_payload: object, delivery: Delivery) -> None:
            try:
                await delivery.signal.wait()
            finally:
                reasons.append(delivery.signal.reason)
                heard.set()

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3, max_retries=0)

        assert await happens_within(15, heard)
        assert reasons == ["timeout"]
