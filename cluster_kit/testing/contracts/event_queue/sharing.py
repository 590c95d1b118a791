"""Scenarios: who gets which task, and how many at a time."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit.message import Reject
from cluster_kit.plugin import Plugin
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench, happens_within
from cluster_kit.testing.recorder import Recorder, answers, until
from cluster_kit.testing.waiting import eventually


async def _short_work(_payload: object, _delivery: object) -> None:
    await asyncio.sleep(0.02)


class _Mails(Plugin):
    name = "mails"
    topics: tuple[str, ...] = ("mails:send", "mails:fetch")


@pytest.mark.asyncio
class SharingScenarios(Scenarios):
    """Concurrency, several instances, several applications, idle, worker mode."""

    @pytest.mark.needs("several_instances")
    async def test_tasks_are_shared_out_and_each_runs_once(self, bench: Bench) -> None:
        clusters = await bench.clusters(3)
        recorders = [Recorder(_short_work) for _ in clusters]
        for cluster, recorder in zip(clusters, recorders, strict=True):
            cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=2)
        await bench.consuming(clusters[0], CHANNEL, 3)

        ids = await clusters[0].event_queue.publish_many(CHANNEL, range(60))

        await eventually(lambda: sum(len(recorder.runs) for recorder in recorders) >= 60)
        await bench.settled(CHANNEL, *clusters)
        assert sorted(id_ for recorder in recorders for id_ in recorder.ids) == sorted(ids)
        assert all(recorder.runs for recorder in recorders), "an instance got nothing"

    async def test_concurrency_is_reached_and_never_exceeded(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=3)
        await cluster.event_queue.publish_many(CHANNEL, range(12))

        await recorder.started(3)
        await bench.ready(cluster, CHANNEL, 9)  # they wait in the broker, not in the instance
        assert recorder.active == 3

        gate.set()
        await recorder.finished(12)
        assert recorder.peak == 3

    async def test_the_default_is_one_at_a_time(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder(_short_work)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish_many(CHANNEL, range(8))

        await recorder.finished(8)
        assert recorder.peak == 1

    async def test_concurrency_zero_is_bounded_by_max_in_flight(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(max_in_flight=20), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=0)
        await cluster.event_queue.publish_many(CHANNEL, range(30))

        await recorder.started(20)
        await bench.ready(cluster, CHANNEL, 10)
        gate.set()

        await recorder.finished(30)
        assert recorder.peak == 20

    @pytest.mark.needs("several_instances")
    async def test_a_busy_instance_does_not_hoard(self, bench: Bench) -> None:
        busy, free = await bench.clusters(2)
        gate = asyncio.Event()
        slow, quick = Recorder(until(gate)), Recorder()
        busy.event_queue.subscribe(CHANNEL, slow.handle)
        await busy.event_queue.publish_many(CHANNEL, range(10))
        await slow.started()

        free.event_queue.subscribe(CHANNEL, quick.handle)

        await quick.finished(9)
        assert len(slow.runs) == 1
        gate.set()

    async def test_channels_do_not_share_their_slots(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        slow, quick = Recorder(until(gate)), Recorder()
        cluster.event_queue.subscribe("slow", slow.handle)
        cluster.event_queue.subscribe("quick", quick.handle)
        await cluster.event_queue.publish_many("slow", range(3))
        await slow.started()

        await cluster.event_queue.publish_many("quick", range(3))

        await quick.finished(3)
        gate.set()

    @pytest.mark.needs("several_instances")
    async def test_an_app_does_not_see_the_tasks_of_another(self, bench: Bench) -> None:
        ours, theirs = await bench.cluster(), await bench.cluster(app=f"{bench.app}-other")
        mine, foreign = Recorder(), Recorder()
        ours.event_queue.subscribe(CHANNEL, mine.handle)
        theirs.event_queue.subscribe(CHANNEL, foreign.handle)

        await ours.event_queue.publish(CHANNEL, "ours")
        await theirs.event_queue.publish(CHANNEL, "theirs")

        await mine.finished()
        await foreign.finished()
        assert (mine.payloads, foreign.payloads) == (["ours"], ["theirs"])

    @pytest.mark.needs("several_instances")
    async def test_a_shared_channel_crosses_applications(self, bench: Bench) -> None:
        ours, theirs = await bench.cluster(), await bench.cluster(app=f"{bench.app}-other")
        channel, recorder = f"{bench.app}.audit", Recorder()
        theirs.event_queue.subscribe(channel, recorder.handle, shared=True)

        published = await ours.event_queue.publish(channel, "hello", shared=True)

        [run] = await recorder.finished()
        assert (run.delivery.id, run.delivery.channel) == (published, channel)

    @pytest.mark.needs("several_instances")
    async def test_dead_letters_of_a_shared_channel_are_shared(self, bench: Bench) -> None:
        ours, theirs = await bench.cluster(), await bench.cluster(app=f"{bench.app}-other")
        channel, recorder = f"{bench.app}.audit", Recorder(answers(Reject("not today")))
        theirs.event_queue.subscribe(channel, recorder.handle, shared=True)
        published = await ours.event_queue.publish(channel, "hello", shared=True)
        letters = ours.event_queue.dead_letters(channel, shared=True)
        await eventually(letters.count)

        assert await theirs.event_queue.dead_letters(channel).count() == 0
        assert await letters.replay() == 1

        await recorder.finished(2)
        assert recorder.ids == [published, published]

    async def test_an_instance_that_says_no_leaves_its_channel_alone(self, bench: Bench) -> None:
        cluster, willing = await bench.cluster(), asyncio.Event()
        resting, working = Recorder(), Recorder()
        cluster.event_queue.subscribe("resting", resting.handle, idle=willing.is_set)
        cluster.event_queue.subscribe("working", working.handle)
        await cluster.event_queue.publish_many("resting", range(3))

        await cluster.event_queue.publish_many("working", range(20))
        await working.finished(20)
        await bench.ready(cluster, "resting", 3)
        assert resting.runs == []

        willing.set()
        await resting.finished(3, timeout=5)

    @pytest.mark.needs("several_instances")
    async def test_what_an_unwilling_instance_was_given_goes_to_others(self, bench: Bench) -> None:
        unwilling, willing = await bench.clusters(2)
        asked, never, worker = asyncio.Event(), Recorder(), Recorder()

        def is_idle() -> bool:
            asked.set()
            return False

        unwilling.event_queue.subscribe(CHANNEL, never.handle, idle=is_idle, concurrency=5)
        assert await happens_within(15, asked)
        willing.event_queue.subscribe(CHANNEL, worker.handle)

        ids = await willing.event_queue.publish_many(CHANNEL, range(20))

        await worker.finished(20)
        assert sorted(worker.ids) == sorted(ids)
        assert never.runs == []

    async def test_an_instance_that_becomes_busy_gives_back_what_it_holds(
        self, bench: Bench
    ) -> None:
        cluster, busy = await bench.cluster(), asyncio.Event()

        async def become_busy(_payload: object, _delivery: object) -> None:
            busy.set()

        recorder = Recorder(become_busy)
        cluster.event_queue.subscribe(
            CHANNEL, recorder.handle, concurrency=4, idle=lambda: not busy.is_set()
        )

        await cluster.event_queue.publish_many(CHANNEL, range(12))

        await recorder.finished()
        # Taken before it was busy: no more than its slots.
        await eventually(
            lambda: cluster.event_queue.depth(CHANNEL),
            lambda depth: depth is not None and depth.ready == 12 - len(recorder.runs),
        )
        assert len(recorder.runs) <= 4

    async def test_idle_that_raises_counts_as_no(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        broken = True

        def is_idle() -> bool:
            if broken:
                raise LookupError("no idea")
            return True

        cluster.event_queue.subscribe(CHANNEL, recorder.handle, idle=is_idle)
        await cluster.event_queue.publish_many(CHANNEL, range(3))
        await bench.ready(cluster, CHANNEL, 3)
        assert recorder.runs == []

        broken = False
        await recorder.finished(3, timeout=5)

    async def test_an_instance_consumes_only_the_topics_it_serves(self, bench: Bench) -> None:
        cluster = await bench.cluster(start=False, plugins=[_Mails], worker_mode=" ! , mails:send ")
        served, unserved, plain = Recorder(), Recorder(), Recorder()
        queue = cluster.event_queue
        queue.subscribe("sending", served.handle, serves="mails:send")
        queue.subscribe("fetching", unserved.handle, serves="mails:fetch")
        queue.subscribe("plain", plain.handle)
        await cluster.start()

        for channel in ("fetching", "sending", "plain"):
            await queue.publish(channel, 1)

        await served.finished()
        await plain.finished()
        await bench.ready(cluster, "fetching", 1)
        assert unserved.runs == []
