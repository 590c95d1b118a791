"""Scenarios: the link to the broker breaks, or an instance is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import (
    ConnectionLost,
    PublishManyError,
    PublishUnconfirmed,
    TransportError,
)
from cluster_kit.message import Delivery
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, answers, until
from cluster_kit.testing.waiting import eventually


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

        async with bench.outage(cluster):
            await bench.reported("connection.lost")
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

    @pytest.mark.needs("link_faults")
    async def test_concurrency_holds_across_a_lost_connection(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=2)
        ids = await cluster.event_queue.publish_many(CHANNEL, range(8))
        await recorder.started(2)

        for _ in range(2):
            async with bench.outage(cluster):
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

        async with bench.outage(cluster):
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
    async def test_a_publish_outlasts_a_short_outage(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(publish_timeout=15), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, "before")

        async with asyncio.TaskGroup() as group, bench.outage(cluster):
            publish = group.create_task(cluster.event_queue.publish(CHANNEL, "during"))
            await asyncio.sleep(0.3)  # it must still be at it when the link comes back
            assert not publish.done()

        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert recorder.payloads == ["before", "during"]
        assert recorder.ids[1] == publish.result()

    @pytest.mark.needs("link_faults")
    async def test_a_publish_in_a_long_outage_ends_within_its_time(self, bench: Bench) -> None:
        cluster = await bench.cluster(publish_timeout=1)
        loop = asyncio.get_running_loop()
        async with bench.outage(cluster):
            begun = loop.time()
            with pytest.raises(ConnectionLost) as single:
                await cluster.event_queue.publish(CHANNEL, 1)
            with pytest.raises(PublishManyError) as many:
                await cluster.event_queue.publish_many(CHANNEL, [1, 2, 3])
            assert loop.time() - begun < 10

        assert single.value.retryable
        assert many.value.confirmed == []
        assert len(many.value.failed) == 3
        assert {type(error) for error in many.value.failed.values()} == {ConnectionLost}
        recorder = Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, "after")
        await recorder.finished()
        assert recorder.payloads == ["after"]  # nothing was sent

    @pytest.mark.needs("link_faults", "frozen_link")
    async def test_a_publish_without_an_answer_says_that_it_may_be_stored(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(publish_timeout=2), Recorder()
        await cluster.event_queue.publish(CHANNEL, "warm")
        await cluster.event_queue.purge(CHANNEL)

        await bench.environment.freeze(cluster)
        try:
            with pytest.raises(PublishUnconfirmed) as unknown:
                await cluster.event_queue.publish(CHANNEL, 1, message_id="order-17")
        finally:
            await bench.environment.reconnect(cluster)

        assert unknown.value.message_id == "order-17"
        assert unknown.value.retryable
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await eventually(lambda: self._published(cluster, "order-17"))
        await recorder.finished()
        await bench.settled(CHANNEL, cluster)
        assert recorder.ids == ["order-17"]

    @pytest.mark.needs("link_faults")
    async def test_looking_at_the_broker_without_a_link_is_an_error(self, bench: Bench) -> None:
        cluster = await bench.cluster(publish_timeout=1)
        letters = cluster.event_queue.dead_letters(CHANNEL)
        async with bench.outage(cluster):
            async with asyncio.timeout(15):
                with pytest.raises(TransportError):
                    await letters.count()
                with pytest.raises(TransportError):
                    await letters.browse()
                with pytest.raises(TransportError):
                    await letters.replay()
                with pytest.raises(TransportError):
                    await cluster.event_queue.purge(CHANNEL)
        await bench.healthy(cluster)
        assert await eventually(letters.count, lambda _: True) == 0

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

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_a_task_that_kills_its_workers_is_dead_as_crashed(self, bench: Bench) -> None:
        keeper = await bench.cluster(crash_limit=2)
        published = await keeper.event_queue.publish(CHANNEL, 1, max_retries=0)
        attempts: list[tuple[int, bool]] = []
        for _ in range(3):  # crash_limit redeliveries are allowed
            victim = await bench.cluster(crash_limit=2)
            recorder = Recorder(until(asyncio.Event()))
            victim.event_queue.subscribe(CHANNEL, recorder.handle)
            [run] = await recorder.started()
            attempts.append((run.delivery.attempt, run.delivery.redelivered))
            await bench.environment.cut_off(victim)
            assert await victim.stop(timeout=0) == [published]

        never = Recorder()
        keeper.event_queue.subscribe(CHANNEL, never.handle)

        [letter] = await bench.dead(keeper, CHANNEL)
        assert attempts == [(1, False), (1, True), (1, True)]
        assert (letter.id, letter.reason, letter.attempts) == (published, "crashed", 0)
        assert (letter.payload, never.runs) == (1, [])

    @pytest.mark.needs("link_faults")
    async def test_many_cuts_lose_nothing_and_double_only_what_was_in_flight(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster(publish_timeout=15)

        async def work(_payload: object, _delivery: Delivery) -> None:
            await asyncio.sleep(0.05)

        recorder = Recorder(work)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=4)
        ids: list[str] = []
        for n in range(4):
            async with asyncio.TaskGroup() as group:
                batch = group.create_task(cluster.event_queue.publish_many(CHANNEL, range(20)))
                await recorder.started(1 + 10 * n)
                async with bench.outage(cluster):
            ids += batch.result()

        await eventually(lambda: set(recorder.ids) >= set(ids))
        await bench.settled(CHANNEL, cluster)
        # One instance remembers what it has done, so even a repeated delivery is not run again.
        assert sorted(recorder.ids) == sorted(ids)

    @pytest.mark.needs("link_faults")
    async def test_a_failing_task_keeps_its_count_across_cuts(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(*[ValueError("no")] * 9))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)
        async with bench.outage(cluster):

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=2)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2, 3]
        assert (letter.id, letter.attempts) == (published, 3)

    @staticmethod
    async def _published(cluster: Cluster, message_id: str) -> bool:
        try:
            await cluster.event_queue.publish(CHANNEL, 1, message_id=message_id)
        except TransportError:
            return False
        return True

    @staticmethod
    async def _dead(cluster: Cluster) -> list[str]:
        try:
            return [
                letter.id for letter in await cluster.event_queue.dead_letters(CHANNEL).browse()
            ]
        except TransportError:
            return []
