"""Scenarios: handlers that ignore their cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Answer, Recorder
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.message import Delivery

LATER = RetryPolicy(initial_delay=1.5, jitter=0)
"""A retry that comes when its instance is gone."""


@pytest.mark.asyncio
class StuckScenarios(Scenarios):
    """A handler that ignores its cancellation holds its slot, and nothing else."""

    @pytest.mark.needs("link_faults", "several_instances", "delays")
    @pytest.mark.parametrize("max_retries", [0, 1])
    async def test_a_stuck_run_whose_instance_dies_leaves_one_retry_or_dead_letter(
        self, bench: Bench, max_retries: int
    ) -> None:
        keeper, ends = await bench.cluster(cancel_grace=0.1), asyncio.Event()
        published = await keeper.event_queue.publish(
            CHANNEL, "stuck", timeout=0.2, max_retries=max_retries
        )
        attempts: list[int] = []
        try:
            for attempt in range(1, max_retries + 2):
                victim = await bench.cluster(cancel_grace=0.1)
                stuck = Recorder(_ignoring_cancellation(ends))
                victim.event_queue.subscribe(CHANNEL, stuck.handle, retry=LATER)
                [run] = await stuck.started()
                attempts.append(run.delivery.attempt)
                event = "task.retried" if attempt <= max_retries else "task.dead"
                await bench.reported(event, id=published)
                await victim.event_queue.publish("beats", None)  # the broker has heard of it all
                await bench.environment.cut_off(victim)
                await victim.stop(timeout=0)
        finally:
            ends.set()

        never = Recorder()
        keeper.event_queue.subscribe(CHANNEL, never.handle)
        [letter] = await bench.dead(keeper, CHANNEL)
        await bench.settled(CHANNEL, keeper)
        assert attempts == list(range(1, max_retries + 2))
        assert (letter.id, letter.reason, letter.attempts) == (published, "failed", len(attempts))
        assert (await keeper.event_queue.dead_letters(CHANNEL).count(), never.runs) == (1, [])

    async def test_a_retry_of_a_stuck_run_counts_as_one_after_a_crash(self, bench: Bench) -> None:
        cluster, ends = await bench.cluster(cancel_grace=0.1), asyncio.Event()
        recorder = Recorder(_ignoring_cancellation(ends))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=RetryPolicy(initial_delay=0))
        published = await cluster.event_queue.publish(CHANNEL, "stuck", timeout=0.2)
        await bench.reported("task.retried", id=published)
        ends.set()

        await recorder.finished(2)
        seen = [(run.delivery.attempt, run.delivery.redelivered) for run in recorder.runs]
        assert seen == [(1, False), (2, True)]  # the first may kill its process yet, unseen

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_losses_of_a_stuck_run_make_its_retry_no_suspect(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        keeper, beats = await bench.cluster(crash_limit=3), Recorder()
        cluster, ends = await bench.cluster(cancel_grace=0.1, crash_limit=3), asyncio.Event()
        cluster.event_queue.subscribe("beats", beats.handle)
        recorder = Recorder(_ignoring_cancellation(ends))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=RetryPolicy(initial_delay=0))
        published = await cluster.event_queue.publish(CHANNEL, "stuck", timeout=5)
        try:
            await recorder.started()
            for beat in (1, 2):  # one less than gets it a fresh copy
                await bench.cut(cluster)
                await bench.healthy(cluster)
                await bench.consuming(keeper, CHANNEL)
                await bench.settled(CHANNEL, keeper)  # it is in the hands of `cluster` again
                await cluster.event_queue.publish("beats", None)
                await beats.finished(beat)
            await bench.reported("task.retried", id=published)
        finally:
            ends.set()

        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert recorder.ids == [published] * 2
        assert "runs alone" not in caplog.text
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    async def test_slots_of_stuck_runs_are_used_again_though_idle_says_no_as_they_end(
        self, bench: Bench
    ) -> None:
        cluster, ends = await bench.cluster(cancel_grace=0.1), asyncio.Event()
        gate, ignoring, answers = asyncio.Event(), _ignoring_cancellation(ends), list[bool]()
        busy = asyncio.Event()

        def idle() -> bool:
            answers.append(not busy.is_set())
            return answers[-1]

        async def answer(payload: object, delivery: Delivery) -> None:
            await (gate.wait() if payload == "long" else ignoring(payload, delivery))

        recorder = Recorder(answer)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=3, idle=idle)
        for _ in range(2):
            published = await cluster.event_queue.publish(
                CHANNEL, "stuck", timeout=0.2, max_retries=0
            )
            await bench.reported("task.dead", id=published)
        await cluster.event_queue.publish_many(CHANNEL, range(3))
        await recorder.finished(3)  # by now the broker knows of one slot
        busy.set()
        ends.set()
        await recorder.finished(5)
        await eventually(lambda: cluster.event_queue.stats()[CHANNEL].running == 0)
        await eventually(lambda: answers[-1] is False)
        busy.clear()

        await cluster.event_queue.publish_many(CHANNEL, ["long"] * 3)
        await recorder.started(8)
        gate.set()
        await recorder.finished(8)

    async def test_a_stuck_run_keeps_its_slot_and_the_others_are_used_as_before(
        self, bench: Bench
    ) -> None:
        cluster, ends = await bench.cluster(cancel_grace=0.1), asyncio.Event()
        stuck = Recorder(_ignoring_cancellation(ends))
        cluster.event_queue.subscribe(CHANNEL, stuck.handle, concurrency=3)
        published = await cluster.event_queue.publish(CHANNEL, "stuck", timeout=0.2, max_retries=0)
        await bench.reported("task.dead", id=published)

        try:
            await cluster.event_queue.publish_many(CHANNEL, range(30))
            await stuck.finished(30)
            await eventually(lambda: cluster.event_queue.stats()[CHANNEL].running == 1)
            assert stuck.peak == 3
            # The broker learns once that there are fewer slots.
            assert len(bench.reports("task.given_back")) <= 3
        finally:
            ends.set()
        await stuck.finished(31)

        await cluster.event_queue.publish_many(CHANNEL, ["more"] * 10)
        await stuck.finished(41)
        assert stuck.peak == 3
        await bench.settled(CHANNEL, cluster)
        assert len(bench.reports("task.done")) == 40


def _ignoring_cancellation(ends: asyncio.Event) -> Answer:
    async def answer(payload: object, _delivery: Delivery) -> None:
        while payload == "stuck" and not ends.is_set():
            with suppress(asyncio.CancelledError):
                await ends.wait()
        if payload != "stuck":
            await asyncio.sleep(0.02)  # so that others run beside it

    return answer
