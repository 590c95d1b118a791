"""Scenarios: publishing while the broker cannot be reached."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.errors import ConnectionLost
from cluster_kit.testing.contracts.pubsub.base import CHANNEL, EACH_TRANSPORT, Scenarios
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.testing.contracts.pubsub.bench import Bench


@pytest.mark.asyncio
class OutageScenarios(Scenarios):
    """A publisher always learns the truth, and its receivers hear of no gap that is none."""

    @pytest.mark.needs("link_faults")
    @EACH_TRANSPORT
    async def test_publishes_outlast_a_short_outage_in_their_order(
        self, bench: Bench, transport: Transport
    ) -> None:
        cut, other = await bench.clusters(2, transport=transport, publish_timeout=15)
        hearer = Hearer()
        await other.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await cut.pubsub.publish(CHANNEL, 0)

        async with asyncio.TaskGroup() as group, bench.outage(cut):
            publishes = [
                group.create_task(cut.pubsub.publish(CHANNEL, number)) for number in range(1, 20)
            ]
            await asyncio.sleep(0.2)  # they must still be at it when the link comes back
            assert not any(publish.done() for publish in publishes)
        await cut.pubsub.publish(CHANNEL, 20)

        assert await hearer.hears(21) == list(range(21))
        assert bench.reports("broadcast.gap") == []

    @pytest.mark.needs("link_faults")
    async def test_a_publish_in_a_long_outage_ends_within_its_time(self, bench: Bench) -> None:
        cluster = await bench.cluster(publish_timeout=0.5)
        loop = asyncio.get_running_loop()
        async with bench.outage(cluster):
            begun = loop.time()
            with pytest.raises(ConnectionLost) as lost:
                await cluster.pubsub.publish(CHANNEL, 1)
            assert loop.time() - begun < 10
        assert lost.value.retryable

    @pytest.mark.needs("link_faults")
    async def test_what_was_not_sent_is_no_gap_to_the_others(self, bench: Bench) -> None:
        cut, other = await bench.clusters(2, publish_timeout=1)
        hearer = Hearer()
        await other.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await cut.pubsub.publish(CHANNEL, "before")

        async with bench.outage(cut):
            async with asyncio.TaskGroup() as group:
                failing = [
                    group.create_task(self._expect_loss(cut.pubsub.publish(CHANNEL, n)))
                    for n in range(5)
                ]
            assert all(failed.done() for failed in failing)
        await cut.pubsub.publish(CHANNEL, "after")

        assert await hearer.hears(2) == ["before", "after"]
        assert [heard.event.seq for heard in hearer.heard] == [1, 2]
        assert bench.reports("broadcast.gap") == []

    @pytest.mark.needs("link_faults")
    async def test_what_was_cancelled_before_it_was_sent_is_no_gap_to_the_others(
        self, bench: Bench
    ) -> None:
        cut, other = await bench.clusters(2, publish_timeout=15)
        hearer = Hearer()
        await other.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await cut.pubsub.publish(CHANNEL, "before")

        async with bench.outage(cut), asyncio.TaskGroup() as group:
            waiting = [group.create_task(cut.pubsub.publish(CHANNEL, n)) for n in range(3)]
            await asyncio.sleep(0.1)  # they wait for the link
            for publish in waiting:
                publish.cancel()
        await cut.pubsub.publish(CHANNEL, "after")

        assert all(publish.cancelled() for publish in waiting)
        assert await hearer.hears(2) == ["before", "after"]
        assert [heard.event.seq for heard in hearer.heard] == [1, 2]
        assert bench.reports("broadcast.gap") == []

    @pytest.mark.needs("link_faults")
    async def test_an_instance_that_is_cut_off_stops(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(publish_timeout=30), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await bench.environment.cut_off(cluster)
        await eventually(lambda: cluster.health()["status"] != "ok")

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            publish = group.create_task(self._expect_loss(cluster.pubsub.publish(CHANNEL, 1)))
            await asyncio.sleep(0)
            await cluster.stop(timeout=1)

        assert publish.done()
        assert bench.reports("broadcast.gap") == []

    @staticmethod
    async def _expect_loss(publish: object) -> None:
        with pytest.raises(ConnectionLost):
            await publish  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
