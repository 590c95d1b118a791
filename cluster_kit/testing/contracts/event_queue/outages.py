"""Scenarios: publishing, and looking at the broker, while it cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import (
    ConnectionLost,
    PublishManyError,
    PublishUnconfirmed,
    TransportError,
)
from cluster_kit.message import Delivery
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually


async def _expect_transport_error(question: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(TransportError):
        await question


@pytest.mark.asyncio
class OutageScenarios(Scenarios):
    """A publisher always learns the truth."""

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
        cluster = await bench.cluster(publish_timeout=0.5)
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
        await bench.healthy(cluster)
        recorder = Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await eventually(lambda: self._published(cluster, "after"))
        await recorder.finished()
        assert recorder.ids == ["after"]  # nothing was sent before

    @pytest.mark.needs("link_faults")
    async def test_a_long_batch_in_an_outage_takes_no_longer_than_one_task(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster(publish_timeout=0.5)
        loop = asyncio.get_running_loop()
        async with bench.outage(cluster):
            begun = loop.time()
            with pytest.raises(PublishManyError) as nothing:
                await cluster.event_queue.publish_many(CHANNEL, range(10_000))
            assert loop.time() - begun < 10

        assert nothing.value.confirmed == []
        assert len(nothing.value.failed) == 10_000
        assert {type(error) for error in nothing.value.failed.values()} == {ConnectionLost}

    @pytest.mark.needs("link_faults")
    async def test_a_batch_cut_in_the_middle_says_which_part_is_stored(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(publish_timeout=1), Recorder()

        async def publish() -> PublishManyError:
            with pytest.raises(PublishManyError) as parted:
                await cluster.event_queue.publish_many(CHANNEL, range(800))
            return parted.value

        async with asyncio.TaskGroup() as group:
            batch = group.create_task(publish())
            await eventually(lambda: "task.published" in dict(bench.events), interval=0)
            await bench.environment.cut_off(cluster)
        await bench.environment.reconnect(cluster)

        error = batch.result()
        assert error.confirmed
        assert error.failed
        assert len({*error.confirmed, *error.failed}) == 800
        assert all(isinstance(failure, TransportError) for failure in error.failed.values())
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=0)
        await eventually(lambda: {*error.confirmed} <= {*recorder.ids})
        unsent = [id_ for id_, why in error.failed.items() if isinstance(why, ConnectionLost)]
        assert not {*unsent} & {*recorder.ids}

    @pytest.mark.needs("link_faults", "frozen_link")
    async def test_a_publish_without_an_answer_says_that_it_may_be_stored(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(publish_timeout=3), Recorder()
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
        cluster = await bench.cluster()
        letters = cluster.event_queue.dead_letters(CHANNEL)
        async with bench.outage(cluster):
            questions: list[Coroutine[Any, Any, object]] = [
                letters.count(),
                letters.browse(),
                letters.replay(),
                letters.discard(),
                cluster.event_queue.purge(CHANNEL),
                cluster.event_queue.depth(CHANNEL),
            ]
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(_expect_transport_error(question))

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
                await bench.cut(cluster)
            ids += batch.result()

        await eventually(lambda: set(recorder.ids) >= set(ids))
        await bench.settled(CHANNEL, cluster)
        # One instance remembers what it has done, so even a repeated delivery is not run again.
        assert sorted(recorder.ids) == sorted(ids)

    @staticmethod
    async def _published(cluster: Cluster, message_id: str) -> bool:
        try:
            await cluster.event_queue.publish(CHANNEL, 1, message_id=message_id)
        except TransportError:
            return False
        return True
