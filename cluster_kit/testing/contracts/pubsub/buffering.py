"""Scenarios: a subscription that cannot keep up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer, holds
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.pubsub.bench import Bench


@pytest.mark.asyncio
class BufferingScenarios(Scenarios):
    """Nothing is dropped in silence."""

    async def test_what_comes_to_a_full_buffer_is_dropped_counted_and_told(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster, gate = await bench.cluster(buffer_size=5), asyncio.Event()
        hearer, quick = Hearer(holds(gate)), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await cluster.pubsub.publish(CHANNEL, 0, skip_self=False)
        await hearer.begins()
        await cluster.pubsub.subscribe("#", quick.handle, on_gap=quick.on_gap)

        for number in range(1, 10):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)
            await quick.hears(number)
        stats = cluster.pubsub.stats()[CHANNEL]
        assert (stats.waiting, stats.dropped) == (5, 4)
        assert stats.lag > 0
        assert bench.reports("broadcast.gap") == []
        assert cluster.health()["adapters"]["pubsub"]["status"] == "degraded"
        assert "cannot keep up" in caplog.text

        gate.set()
        assert await hearer.is_told() == [[CHANNEL]]
        assert hearer.messages == [0, 1, 2, 3, 4, 5]
        assert len(bench.reports("broadcast.dropped")) == 4
        assert cluster.health()["adapters"]["pubsub"]["status"] == "ok"
        assert bench.reports("broadcast.gap", subscription="#") == []

    async def test_after_a_gap_a_subscription_goes_on(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(buffer_size=1), asyncio.Event()
        hearer = Hearer(holds(gate))
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await cluster.pubsub.publish(CHANNEL, "first", skip_self=False)
        await hearer.begins()
        for _ in range(3):
            await cluster.pubsub.publish(CHANNEL, "more", skip_self=False)
        await eventually(lambda: cluster.pubsub.stats()[CHANNEL].dropped == 2)

        gate.set()
        await hearer.is_told()
        await cluster.pubsub.publish(CHANNEL, "end", skip_self=False)

        assert await hearer.hears(3) == ["first", "more", "end"]
        assert len(hearer.gaps) == 1

    async def test_a_burst_within_the_buffer_is_handled_whole(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(buffer_size=500), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        async with asyncio.TaskGroup() as group:
            for number in range(500):
                group.create_task(cluster.pubsub.publish(CHANNEL, number, skip_self=False))

        assert await hearer.hears(500) == list(range(500))
        assert bench.reports("broadcast.gap") == []

    async def test_messages_held_by_a_debounce_count(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(buffer_size=2), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=2, on_gap=hearer.on_gap)

        for number in (1, 2, 3, 1):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)
        await eventually(lambda: cluster.pubsub.stats()[CHANNEL].dropped == 1)

        assert sorted(map(str, await hearer.hears(2))) == ["1", "2"]
        assert await hearer.is_told() == [[CHANNEL]]
