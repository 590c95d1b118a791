"""Scenarios: starting, stopping, subscribing and unsubscribing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from cluster_kit.errors import AlreadySubscribedError, ClusterKitError, NotStartedError
from cluster_kit.plugin import Plugin
from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, until


class _Farewell(Plugin):
    name = "farewell"

    async def load(self) -> None:
        await self.cluster.event_queue.publish("greetings", "hello")

    async def before_stop(self) -> None:
        await self.cluster.event_queue.publish("greetings", "goodbye")


async def _ignoring_cancellation(gate: asyncio.Event) -> None:
    while not gate.is_set():
        try:
            await gate.wait()
        except asyncio.CancelledError:
            continue


@pytest.mark.asyncio
class LifecycleScenarios(Scenarios):
    """What holds before start, while stopping, and after."""

    async def test_nothing_is_published_before_start(self, bench: Bench) -> None:
        cluster = await bench.cluster(start=False)
        queue = cluster.event_queue
        with pytest.raises(NotStartedError):
            await queue.publish(CHANNEL, 1)
        with pytest.raises(NotStartedError):
            await queue.publish_many(CHANNEL, [1])

    async def test_nothing_is_published_after_stop(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        letters = cluster.event_queue.dead_letters(CHANNEL)
        await cluster.stop()
        with pytest.raises(NotStartedError):
            await cluster.event_queue.publish(CHANNEL, 1)
        with pytest.raises(NotStartedError):
            await cluster.event_queue.purge(CHANNEL)
        with pytest.raises(ClusterKitError):
            await letters.count()

    async def test_stop_and_start_are_idempotent(self, bench: Bench) -> None:
        cluster = await bench.cluster(start=False)
        assert await cluster.stop() == []
        await cluster.start()
        await cluster.start()
        async with asyncio.TaskGroup() as group:
            stops = [group.create_task(cluster.stop()) for _ in range(3)]
        assert [stop.result() for stop in stops] == [[], [], []]
        assert await cluster.stop() == []

    async def test_a_stopped_instance_can_start_again(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.finished(1)

        await cluster.stop()
        await cluster.start()

        await cluster.event_queue.publish(CHANNEL, 2)
        await recorder.finished(2)
        assert recorder.payloads == [1, 2]

    @pytest.mark.needs("several_instances")
    async def test_starting_and_stopping_again_and_again_loses_nothing(self, bench: Bench) -> None:
        steady, restless = await bench.clusters(2)
        recorder = Recorder()
        restless.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=3)
        ids: list[str] = []
        for n in range(10):
            ids += await steady.event_queue.publish_many(CHANNEL, [n] * 5)
            await restless.stop()
            await restless.start()

        steady.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=3)
        await recorder.finished(len(ids))  # one may be on its way back, where nobody sees it
        await bench.settled(CHANNEL, steady, restless)
        assert sorted(recorder.ids) == sorted(ids)

    async def test_stop_waits_for_what_runs(self, bench: Bench) -> None:
        keeper, cluster = await bench.cluster(), await bench.cluster()
        gate = asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, 1)
        [run] = await recorder.started()

        async with asyncio.TaskGroup() as group:
            stop = group.create_task(cluster.stop(timeout=15))
            await asyncio.sleep(0.3)  # long enough to be in the middle of it
            assert not stop.done()
            assert not run.delivery.signal.aborted
            gate.set()

        assert stop.result() == []
        assert (run.ended, run.error) == (True, None)
        await bench.ready(keeper, CHANNEL, 0)

    @pytest.mark.needs("several_instances")
    async def test_what_had_not_started_at_stop_goes_to_others(self, bench: Bench) -> None:
        stopping, other = await bench.clusters(2)
        gate, quick = asyncio.Event(), Recorder()
        slow = Recorder(until(gate))
        stopping.event_queue.subscribe(CHANNEL, slow.handle, concurrency=2)
        await stopping.event_queue.publish_many(CHANNEL, range(10))
        await slow.started(2)
        other.event_queue.subscribe(CHANNEL, quick.handle)

        async with asyncio.TaskGroup() as group:
            group.create_task(stopping.stop(timeout=15))
            await quick.finished(8)
            gate.set()

        await bench.settled(CHANNEL, other)
        assert (len(slow.runs), len(quick.runs)) == (2, 8)

    @pytest.mark.needs("several_instances")
    async def test_a_run_cut_short_by_stop_uses_no_attempt(self, bench: Bench) -> None:
        stopping, other = await bench.clusters(2)
        slow, quick = Recorder(until(asyncio.Event())), Recorder()
        stopping.event_queue.subscribe(CHANNEL, slow.handle, max_retries=0)
        published = await stopping.event_queue.publish(CHANNEL, 1)
        [cut] = await slow.started()

        assert await stopping.stop(timeout=0.2) == [published]

        assert isinstance(cut.error, asyncio.CancelledError)
        assert cut.delivery.signal.reason == "shutdown"
        assert not cut.delivery.redelivered
        other.event_queue.subscribe(CHANNEL, quick.handle, max_retries=0)
        [run] = await quick.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 1)
        assert run.delivery.redelivered
        assert await other.event_queue.dead_letters(CHANNEL).count() == 0

    @pytest.mark.needs("several_instances")
    async def test_stop_does_not_wait_for_a_run_that_ignores_it(self, bench: Bench) -> None:
        stopping, other = await bench.cluster(cancel_grace=0.2), await bench.cluster()
        gate, quick = asyncio.Event(), Recorder()

        stuck = Recorder(lambda _payload, _delivery: _ignoring_cancellation(gate))
        stopping.event_queue.subscribe(CHANNEL, stuck.handle)
        published = await stopping.event_queue.publish(CHANNEL, 1)
        await stuck.started()

        try:
            async with asyncio.timeout(15):
                assert await stopping.stop(timeout=0.1) == [published]
            other.event_queue.subscribe(CHANNEL, quick.handle)
            [run] = await quick.finished()
            assert (run.delivery.id, run.delivery.attempt) == (published, 1)
        finally:
            gate.set()
        await stuck.finished()

    @pytest.mark.needs("several_instances", "delays")
    async def test_a_stop_beside_a_stuck_run_whose_retry_is_stored_does_not_double_it(
        self, bench: Bench
    ) -> None:
        stopping, other = await bench.cluster(cancel_grace=0.1), await bench.cluster()
        gate, quick = asyncio.Event(), Recorder()
        stuck = Recorder(lambda _payload, _delivery: _ignoring_cancellation(gate))
        stopping.event_queue.subscribe(CHANNEL, stuck.handle, retry=RetryPolicy(initial_delay=1))
        published = await stopping.event_queue.publish(CHANNEL, 1, timeout=0.2)
        await bench.reported("task.retried", id=published)
        assert stopping.event_queue.stats()[CHANNEL].running == 1

        try:
            async with asyncio.timeout(15):
                assert await stopping.stop(timeout=0.1) == [published]
            other.event_queue.subscribe(CHANNEL, quick.handle)
            await quick.finished()
            await bench.settled(CHANNEL, other)
            assert [run.delivery.attempt for run in quick.runs] == [2]
        finally:
            gate.set()
        await stuck.finished()

    async def test_plugins_can_publish_while_loading_and_stopping(self, bench: Bench) -> None:
        keeper, recorder = await bench.cluster(), Recorder()
        keeper.event_queue.subscribe("greetings", recorder.handle)

        cluster = await bench.cluster(plugins=[_Farewell])
        await recorder.finished(1)
        await cluster.stop()

        await recorder.finished(2)
        assert recorder.payloads == ["hello", "goodbye"]

    async def test_the_same_handler_again_has_no_effect(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        for _ in range(3):
            cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await cluster.event_queue.publish(CHANNEL, 1)

        await recorder.finished()
        await bench.settled(CHANNEL, cluster)
        assert len(recorder.runs) == 1

    async def test_another_handler_on_a_channel_is_refused(self, bench: Bench) -> None:
        cluster, first, second = await bench.cluster(), Recorder(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, first.handle)

        with pytest.raises(AlreadySubscribedError) as refused:
            cluster.event_queue.subscribe(CHANNEL, second.handle)

        assert refused.value.channel == CHANNEL
        name = "cluster_kit.testing.recorder.Recorder.handle"
        assert (refused.value.taken, refused.value.refused) == (name, name)
        await cluster.event_queue.publish(CHANNEL, 1)
        await first.finished()
        assert second.runs == []

    async def test_unsubscribe_lets_runs_finish_and_takes_nothing_more(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=2)
        await cluster.event_queue.publish_many(CHANNEL, range(5))
        await recorder.started(2)

        cluster.event_queue.unsubscribe(CHANNEL)
        cluster.event_queue.unsubscribe("never.subscribed")
        gate.set()

        runs = await recorder.finished(2)
        await bench.ready(cluster, CHANNEL, 3)
        assert [run.error for run in runs] == [None, None]
        assert len(recorder.runs) == 2

    async def test_a_channel_can_be_subscribed_again(self, bench: Bench) -> None:
        cluster, first, second = await bench.cluster(), Recorder(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, first.handle)
        await cluster.event_queue.publish(CHANNEL, 1)
        await first.finished()

        cluster.event_queue.unsubscribe(CHANNEL)
        cluster.event_queue.subscribe(CHANNEL, second.handle)
        await cluster.event_queue.publish(CHANNEL, 2)

        await second.finished()
        assert (first.payloads, second.payloads) == ([1], [2])

    @pytest.mark.parametrize("opened", ["first", "last"])
    async def test_what_is_unsubscribed_while_consumers_open_is_not_consumed(
        self, bench: Bench, opened: str
    ) -> None:
        cluster, recorder, never = await bench.cluster(start=False), Recorder(), Recorder()
        queue = cluster.event_queue
        queue.subscribe("first", recorder.handle)
        queue.subscribe("last", never.handle)

        def unsubscribe(event: str, fields: Mapping[str, object]) -> None:
            if event == "consumer.started" and fields["queue"] == f"{bench.app}.{opened}":
                queue.unsubscribe("last")

        cluster.telemetry.subscribe(unsubscribe)
        await cluster.start()

        await bench.consuming(cluster, "last", 0)
        await queue.publish("last", 1)
        await queue.publish("first", 1)
        await recorder.finished()
        await bench.ready(cluster, "last", 1)
        assert never.runs == []

    async def test_subscribing_again_does_not_add_to_what_still_runs(self, bench: Bench) -> None:
        cluster, gate, witness = await bench.cluster(), asyncio.Event(), Recorder()
        recorder = Recorder(until(gate))
        queue = cluster.event_queue
        queue.subscribe(CHANNEL, recorder.handle, concurrency=2)
        await queue.publish_many(CHANNEL, range(6))
        await recorder.started(2)

        queue.unsubscribe(CHANNEL)
        queue.subscribe(CHANNEL, recorder.handle, concurrency=2)
        queue.subscribe("elsewhere", witness.handle)  # what opens later is at work
        await queue.publish("elsewhere", 1)
        await witness.finished()
        gate.set()

        await recorder.finished(6)
        assert recorder.peak == 2

    async def test_an_instance_left_by_its_caller_still_stops(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.started()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await cluster.stop(timeout=15)
        gate.set()

        assert await cluster.stop() == []
        [run] = recorder.runs
        assert (run.ended, run.error) == (True, None)
