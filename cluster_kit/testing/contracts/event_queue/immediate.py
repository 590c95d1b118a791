"""Scenarios: retries that begin at once, where the task is, and what that must not cost."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

import pytest

from cluster_kit.message import Delivery, HandlerAnswer, Reject, Retry, Snooze
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, IN_PLACE, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, always, answers


@pytest.mark.asyncio
class ImmediateScenarios(Scenarios):
    """A retry in place is an attempt like any other, and the broker hears of none."""

    async def test_the_first_retries_are_in_place_and_the_others_are_stored(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=4)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        retried = bench.reports("task.retried", id=published)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2, 3, 4, 5]
        assert [each["attempt"] for each in retried] == [1, 2, 3, 4]
        assert [each["delay"] for each in retried] == [0, 0, 0.3, 3]
        assert (letter.id, letter.reason, letter.attempts) == (published, "failed", 5)
        assert cluster.event_queue.stats()[CHANNEL].started == 5

    async def test_a_retry_in_place_keeps_its_slot_and_its_turn(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder(answers(ValueError(), ValueError()))
        for payload in ("fails", "next"):
            await cluster.event_queue.publish(CHANNEL, payload)

        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)

        runs = await recorder.finished(4)
        await bench.settled(CHANNEL, cluster)
        assert recorder.payloads == ["fails", "fails", "fails", "next"]
        assert recorder.peak == 1
        assert not any(run.delivery.redelivered for run in runs)
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    @pytest.mark.parametrize("max_retries", [0, 1])
    async def test_max_retries_counts_those_in_place(self, bench: Bench, max_retries: int) -> None:
        cluster, recorder = await bench.cluster(), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)

        await cluster.event_queue.publish(CHANNEL, 1, max_retries=max_retries)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert (len(recorder.runs), letter.attempts) == (max_retries + 1, max_retries + 1)

    async def test_each_run_in_place_is_given_the_payload_as_it_was_published(
        self, bench: Bench
    ) -> None:
        cluster, seen = await bench.cluster(), list[dict[str, int]]()

        async def spoil(payload: object, _delivery: Delivery) -> None:
            given = cast("dict[str, int]", payload)
            seen.append(dict(given))
            given.clear()
            if len(seen) == 1:
                raise ValueError("no")

        recorder = Recorder(spoil)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)
        await cluster.event_queue.publish(CHANNEL, {"n": 1})

        await recorder.finished(2)
        assert seen == [{"n": 1}, {"n": 1}]

    @pytest.mark.parametrize(
        ("answer", "order"),
        [
            (Retry(), ["asks", "asks", "next"]),
            (Retry(delay=0), ["asks", "next", "asks"]),
            (Snooze(0), ["asks", "next", "asks"]),
            (Reject("no"), ["asks", "next"]),
        ],
    )
    async def test_a_handlers_own_answer_wins(
        self, bench: Bench, answer: HandlerAnswer, order: list[str]
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder(answers(answer))
        for payload in ("asks", "next"):
            await cluster.event_queue.publish(CHANNEL, payload)

        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)

        await recorder.finished(len(order))
        await bench.settled(CHANNEL, cluster)
        assert recorder.payloads == order

    async def test_each_run_in_place_has_its_own_timeout_and_signal(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(lambda _payload, _delivery: asyncio.sleep(60))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)

        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3, max_retries=2)

        [letter] = await bench.dead(cluster, CHANNEL)
        deliveries = [run.delivery for run in recorder.runs]
        assert [delivery.attempt for delivery in deliveries] == [1, 2, 3]
        assert [delivery.signal.reason for delivery in deliveries] == ["timeout"] * 3
        assert len({id(delivery.signal) for delivery in deliveries}) == 3
        assert len({delivery.deadline for delivery in deliveries}) == 3
        assert (letter.attempts, letter.reason) == (3, "failed")
        assert "HandlerTimeout" in letter.error_type

    async def test_a_run_that_ignores_its_cancellation_is_not_followed_in_place(
        self, bench: Bench
    ) -> None:
        cluster, gate = await bench.cluster(cancel_grace=0.1), asyncio.Event()

        async def ignore(_payload: object, delivery: Delivery) -> None:
            while delivery.attempt == 1 and not gate.is_set():
                with suppress(asyncio.CancelledError):
                    await gate.wait()

        recorder = Recorder(ignore)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)
        published = await cluster.event_queue.publish(CHANNEL, 1, timeout=0.2)

        stored = await bench.reported("task.retried", id=published)
        assert (stored["delay"], len(recorder.runs)) == (0.3, 1)
        gate.set()

        runs = await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert [run.delivery.attempt for run in runs] == [1, 2]

    async def test_a_task_that_expired_does_not_begin_again_in_place(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async def fail_late(_payload: object, _delivery: Delivery) -> None:
            await asyncio.sleep(1.2)
            raise ValueError("no")

        recorder = Recorder(fail_late)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)
        await bench.consuming(cluster, CHANNEL)
        await cluster.event_queue.publish(CHANNEL, 1, ttl=0.8)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.reason, letter.attempts, len(recorder.runs)) == ("expired", 1, 1)
