"""Scenarios: the link to the broker breaks, or an instance is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import (
    TransportError,
)
from cluster_kit.message import Delivery, Reject, Snooze
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench, happens_within
from cluster_kit.testing.recorder import Recorder, always, answers, until
from cluster_kit.testing.waiting import eventually


@asynccontextmanager
async def _frozen_at(event: str, bench: Bench, cluster: Cluster) -> AsyncGenerator[asyncio.Event]:
    """Freeze the link of `cluster` the first time it reports `event`; then set what is given."""
    frozen = asyncio.Event()

    async with asyncio.TaskGroup() as group:

        def freeze(reported: str, _fields: Mapping[str, object]) -> None:
            if reported == event and not frozen.is_set():
                frozen.set()
                group.create_task(bench.environment.freeze(cluster))

        cluster.telemetry.subscribe(freeze)
        yield frozen


@pytest.mark.asyncio
class FaultScenarios(Scenarios):
    """Nothing is lost, and nothing runs twice that need not."""

    @pytest.mark.needs("link_faults")
    async def test_a_lost_connection_does_not_cancel_a_run(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        published = await cluster.event_queue.publish(CHANNEL, 1)
        [run] = await recorder.started()

        await bench.cut(cluster)
        await bench.healthy(cluster)
        await cluster.event_queue.publish("elsewhere", "the link is up")
        assert not run.ended
        gate.set()

        await recorder.finished()
        await cluster.event_queue.publish(CHANNEL, 2)
        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert (run.error, run.delivery.signal.aborted) == (None, False)
        assert recorder.ids.count(published) == 1

    @pytest.mark.needs("link_faults")
    async def test_a_lost_acknowledgement_is_made_up_for_without_a_second_run(
        self, bench: Bench
    ) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        published = await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.started()

        async with bench.outage(cluster):
            gate.set()
            await recorder.finished()
            await bench.reported("task.ack_lost", id=published)

        await bench.reported("task.ack_remembered", id=published)
        await bench.settled(CHANNEL, cluster)
        assert recorder.ids == [published]

    @pytest.mark.needs("link_faults", "frozen_link")
    @pytest.mark.parametrize(
        ("error", "stored", "attempts"),
        [(ValueError("no"), "task.retried", [1, 2]), (Reject("no"), "task.dead", [1])],
    )
    async def test_an_acknowledgement_lost_on_its_way_does_not_double_what_it_stands_for(
        self, bench: Bench, error: Exception, stored: str, attempts: list[int]
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder(always(error))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE, max_retries=1)

        # The outcome is stored and the acknowledgement comes next: nothing arrives from here on.
        async with _frozen_at(stored, bench, cluster) as frozen:
            published = await cluster.event_queue.publish(CHANNEL, 1)
            assert await happens_within(15, frozen)
        await eventually(lambda: cluster.event_queue.stats()[CHANNEL].running == 0)
        await bench.cut(cluster)

        await bench.reported("task.ack_remembered", id=published)
        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert [run.delivery.attempt for run in recorder.runs] == attempts
        assert (letter.id, letter.attempts) == (published, len(attempts))
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 1

    @pytest.mark.needs("link_faults", "frozen_link")
    async def test_what_is_settled_for_two_copies_is_remembered_for_both(
        self, bench: Bench
    ) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()

        async def fail(_payload: object, _delivery: Delivery) -> None:
            await gate.wait()
            raise ValueError("no")

        recorder = Recorder(fail)
        cluster.event_queue.subscribe(
            CHANNEL, recorder.handle, concurrency=2, retry=AT_ONCE, max_retries=1
        )
        for _ in range(2):  # as a publisher does that did not hear of the first
            await cluster.event_queue.publish(CHANNEL, 1, message_id="order-17")
        await recorder.started()
        await bench.ready(cluster, CHANNEL, 0)  # both are here

        async with _frozen_at("task.retried", bench, cluster) as frozen:
            gate.set()
            assert await happens_within(15, frozen)
        await bench.cut(cluster)

        await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2]
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 1

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_what_an_instance_loses_another_runs(self, bench: Bench) -> None:
        lost, other = await bench.clusters(2)
        held, quick = Recorder(until(asyncio.Event())), Recorder()
        lost.event_queue.subscribe(CHANNEL, held.handle, max_retries=0)
        published = await lost.event_queue.publish(CHANNEL, 1)
        await held.started()
        other.event_queue.subscribe(CHANNEL, quick.handle, max_retries=0)

        await bench.environment.cut_off(lost)

        [run] = await quick.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 1)
        assert run.delivery.redelivered
        async with asyncio.timeout(15):
            assert await lost.stop(timeout=0.1) == [published]  # also without a broker

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_the_only_copy_left_outlives_an_instance_that_still_runs_an_older_one(
        self, bench: Bench
    ) -> None:
        lost, snoozes = await bench.clusters(2)
        held = Recorder(lambda payload, _: asyncio.sleep(3600 if payload == 1 else 0))
        lost.event_queue.subscribe(CHANNEL, held.handle, concurrency=2)
        published = await lost.event_queue.publish(CHANNEL, 1)
        await held.started()

        async with bench.outage(lost):
            # Elsewhere the task gives way to a fresh copy of itself, and the old one is gone.
            snoozes.event_queue.subscribe(CHANNEL, Recorder(always(Snooze(1))).handle)
            await bench.reported("task.snoozed", id=published)
            await snoozes.stop()
            third = await bench.cluster()
            await bench.ready(third, CHANNEL, 1)
            await third.event_queue.publish(CHANNEL, "behind it")
        await held.finished()  # what lay behind, so `lost` holds the fresh copy too
        assert published in await lost.stop(timeout=0)

        recorder = Recorder()
        third.event_queue.subscribe(CHANNEL, recorder.handle)
        await recorder.finished()
        assert recorder.ids == [published]

    @pytest.mark.needs("link_faults")
    async def test_concurrency_holds_across_a_lost_connection(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=2)
        ids = await cluster.event_queue.publish_many(CHANNEL, range(8))
        await recorder.started(2)

        for _ in range(2):
            await bench.cut(cluster)
            await bench.healthy(cluster)
        gate.set()

        await recorder.finished(8)
        await bench.settled(CHANNEL, cluster)
        assert recorder.peak == 2
        assert sorted(recorder.ids) == sorted(ids)

    @pytest.mark.needs("link_faults")
    async def test_consumers_go_on_after_an_outage(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        for channel in ("one", "two", "three"):
            cluster.event_queue.subscribe(channel, recorder.handle)
            await cluster.event_queue.publish(channel, channel)
        await recorder.finished(3)

        await bench.cut(cluster)
        for channel in ("one", "two", "three"):
            await cluster.event_queue.publish(channel, channel)

        await recorder.finished(6)
        assert sorted(map(str, recorder.payloads)) == sorted(["one", "two", "three"] * 2)
        await bench.healthy(cluster)

    @pytest.mark.needs("link_faults")
    async def test_a_channel_subscribed_during_an_outage_is_consumed_after(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        await cluster.event_queue.publish(CHANNEL, 1)
        async with bench.outage(cluster):
            cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished()
        assert recorder.payloads == [1]

    @pytest.mark.needs("link_faults")
    async def test_a_retry_decided_without_a_link_is_not_lost(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()

        async def fail_once(_payload: object, delivery: Delivery) -> None:
            if delivery.attempt == 1:
                await gate.wait()
                raise ValueError("no")

        recorder = Recorder(fail_once)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)
        published = await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.started()

        async with bench.outage(cluster):
            gate.set()
            await recorder.finished()

        runs = await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert [run.delivery.attempt for run in runs] == [1, 2]
        assert recorder.ids == [published, published]

    @pytest.mark.needs("link_faults")
    async def test_a_dead_letter_decided_without_a_link_is_not_lost(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()

        async def fail(_payload: object, _delivery: Delivery) -> None:
            await gate.wait()
            raise ValueError("no")

        recorder = Recorder(fail)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, max_retries=0)
        published = await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.started()

        async with bench.outage(cluster):
            gate.set()
            await recorder.finished()

        await eventually(lambda: self._dead(cluster), lambda found: found == [published])
        await bench.settled(CHANNEL, cluster)
        assert recorder.ids == [published]

    @pytest.mark.needs("link_faults")
    async def test_a_failing_task_keeps_its_count_across_cuts(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(*[ValueError("no")] * 9))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)
        await bench.cut(cluster)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=2)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2, 3]
        assert (letter.id, letter.attempts) == (published, 3)

    @staticmethod
    async def _dead(cluster: Cluster) -> list[str]:
        try:
            return [
                letter.id for letter in await cluster.event_queue.dead_letters(CHANNEL).browse()
            ]
        except TransportError:
            return []
