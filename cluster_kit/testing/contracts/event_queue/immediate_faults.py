"""Scenarios: what ends an instance or its link while it retries a task in place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.message import Delivery
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, IN_PLACE, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Answer, Recorder
from cluster_kit.testing.waiting import eventually


def failing_until(attempt: int, *gates: asyncio.Event) -> Answer:
    """Return an answer that waits for a gate in each run, and fails those before this attempt."""

    async def answer(_payload: object, delivery: Delivery) -> None:
        if delivery.attempt <= len(gates):
            await gates[delivery.attempt - 1].wait()
        if delivery.attempt < attempt:
            raise ValueError("not yet")

    return answer


def opened() -> asyncio.Event:
    """Return a gate that holds nobody."""
    gate = asyncio.Event()
    gate.set()
    return gate


@asynccontextmanager
async def cut_off_at(event: str, bench: Bench, cluster: Cluster) -> AsyncGenerator[None]:
    """Cut the link of `cluster` the first time it reports `event`, until the block is left."""
    cuts: list[asyncio.Task[None]] = []

    async with asyncio.TaskGroup() as group:

        def cut(reported: str, _fields: Mapping[str, object]) -> None:
            if reported == event and not cuts:
                cuts.append(group.create_task(bench.environment.cut_off(cluster)))

        cluster.telemetry.subscribe(cut)
        yield
    await bench.environment.reconnect(cluster)


@pytest.mark.asyncio
class ImmediateFaultScenarios(Scenarios):
    """No attempt is begun that is not this instance's any more, and no task is lost with one."""

    @pytest.mark.needs("several_instances")
    async def test_nothing_begins_in_place_while_its_instance_stops(self, bench: Bench) -> None:
        stopping, other = await bench.clusters(2)
        gate, working = asyncio.Event(), Recorder()
        failing = Recorder(failing_until(9, gate))
        stopping.event_queue.subscribe(CHANNEL, failing.handle, retry=IN_PLACE)
        published = await stopping.event_queue.publish(CHANNEL, 1)
        await failing.started()

        async with asyncio.TaskGroup() as group:
            stop = group.create_task(stopping.stop(timeout=30))
            await eventually(lambda: not stopping.health()["ready"])
            await asyncio.sleep(0.3)  # long enough to be in the middle of it
            gate.set()
        assert stop.result() == []

        other.event_queue.subscribe(CHANNEL, working.handle, retry=IN_PLACE)
        [run] = await working.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 2)
        assert len(failing.runs) == 1

    @pytest.mark.needs("several_instances")
    async def test_what_a_stop_cuts_short_in_place_begins_where_it_was_stored(
        self, bench: Bench
    ) -> None:
        stopping, other = await bench.clusters(2)
        failing, working = Recorder(failing_until(2, opened(), asyncio.Event())), Recorder()
        stopping.event_queue.subscribe(CHANNEL, failing.handle, retry=IN_PLACE)
        published = await stopping.event_queue.publish(CHANNEL, 1)
        await failing.started(2)

        assert await stopping.stop(timeout=0) == [published]

        other.event_queue.subscribe(CHANNEL, working.handle)
        [run] = await working.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 1)

    @pytest.mark.needs("link_faults")
    async def test_a_connection_lost_as_a_task_runs_again_in_place_changes_nothing(
        self, bench: Bench
    ) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(failing_until(2, opened(), gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)

        async with cut_off_at("task.retried", bench, cluster):
            published = await cluster.event_queue.publish(CHANNEL, 1)
            await recorder.started(2)
            await bench.notices(cluster)
        await bench.healthy(cluster)
        gate.set()

        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        await cluster.event_queue.publish(CHANNEL, 2)
        await recorder.finished(3)
        assert recorder.ids.count(published) == 2
        assert bench.reports("task.dead") == []

    @pytest.mark.needs("link_faults")
    async def test_a_run_whose_delivery_came_again_is_followed_in_place(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder, beats = Recorder(failing_until(3, gate)), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)
        published = await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.started()

        await bench.cut(cluster)
        await bench.healthy(cluster)
        await bench.consuming(cluster, CHANNEL)
        await bench.ready(cluster, CHANNEL, 0)  # it is here again
        cluster.event_queue.subscribe("beats", beats.handle)
        await cluster.event_queue.publish("beats", None)
        await beats.finished()  # and was read
        gate.set()

        await recorder.finished(3)
        await bench.settled(CHANNEL, cluster)
        retried = bench.reports("task.retried", id=published)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2, 3]
        assert [each["delay"] for each in retried] == [0, 0]

    @pytest.mark.needs("link_faults")
    async def test_without_a_link_a_retry_is_stored_later_and_not_begun(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(failing_until(2, gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=IN_PLACE)
        published = await cluster.event_queue.publish(CHANNEL, 1)
        await recorder.started()

        async with bench.outage(cluster):
            gate.set()
            await recorder.finished()

        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        retried = bench.reports("task.retried", id=published)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2]
        assert [(each["attempt"], each["delay"]) for each in retried] == [(1, 0.3)]

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_runs_in_place_are_forgotten_with_their_instance(self, bench: Bench) -> None:
        victim, other = await bench.clusters(2)
        failing, working = Recorder(failing_until(2, opened(), asyncio.Event())), Recorder()
        victim.event_queue.subscribe(CHANNEL, failing.handle, retry=IN_PLACE)
        published = await victim.event_queue.publish(CHANNEL, 1, max_retries=2)
        await failing.started(2)

        await bench.environment.cut_off(victim)
        await victim.stop(timeout=0)

        other.event_queue.subscribe(CHANNEL, working.handle, retry=IN_PLACE)
        [run] = await working.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 1)
        assert run.delivery.redelivered

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_a_copy_stored_afresh_has_the_attempt_that_was_reached(
        self, bench: Bench
    ) -> None:
        victim, keeper = await bench.clusters(2, crash_limit=1)
        lasting, again = Recorder(failing_until(2, opened(), asyncio.Event())), Recorder()
        victim.event_queue.subscribe(CHANNEL, lasting.handle, retry=IN_PLACE)
        published = await victim.event_queue.publish(CHANNEL, 1)
        await lasting.started(2)

        await bench.cut(victim)
        await bench.reported("task.renewed", id=published)
        await bench.settled(CHANNEL, keeper)  # it is in the hands of the victim again
        await bench.environment.cut_off(victim)
        await victim.stop(timeout=0)

        keeper.event_queue.subscribe(CHANNEL, again.handle, retry=IN_PLACE)
        [run] = await again.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 2)
        await eventually(lambda: bench.reports("task.done", id=published, attempt=2))
