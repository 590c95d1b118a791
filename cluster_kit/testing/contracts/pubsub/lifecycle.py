"""Scenarios: before start, while loading, at stop and after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.errors import NotStartedError
from cluster_kit.plugin import Plugin
from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer, holds
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.pubsub.bench import Bench


class _Talkative(Plugin):
    """Says in which hook it is."""

    name = "talkative"

    async def _say(self, hook: str) -> None:
        await self.cluster.pubsub.publish(CHANNEL, hook, skip_self=False)

    async def before_load(self) -> None:
        await self._say("before_load")

    async def load(self) -> None:
        await self._say("load")

    async def after_start(self) -> None:
        await self._say("after_start")

    async def before_stop(self) -> None:
        await self._say("before_stop")


class _Slow(Plugin):
    """Loads until it is let go, and hears while it stops."""

    name = "slow"

    def __init__(self) -> None:
        self.hearer = Hearer()
        self.loading = asyncio.Event()
        self.gate = asyncio.Event()

    async def load(self) -> None:
        await self.cluster.pubsub.subscribe(CHANNEL, self.hearer.handle)
        self.loading.set()
        await self.gate.wait()

    async def before_stop(self) -> None:
        await self.cluster.pubsub.publish(CHANNEL, "stopping", skip_self=False)
        await self.hearer.hears(len(self.hearer.heard) or 1)
        await eventually(lambda: "stopping" in self.hearer.messages)


@pytest.mark.asyncio
class LifecycleScenarios(Scenarios):
    """No call too early, none too late."""

    async def test_nothing_is_published_before_start_or_after_stop(self, bench: Bench) -> None:
        cluster = await bench.cluster(start=False)
        for publish in (cluster.pubsub.publish, cluster.sync_messages.publish):
            with pytest.raises(NotStartedError):
                await publish(CHANNEL, 1)

        async with cluster:
            await cluster.pubsub.publish(CHANNEL, 1)

        for publish in (cluster.pubsub.publish, cluster.sync_messages.publish):
            with pytest.raises(NotStartedError):
                await publish(CHANNEL, 1)

    async def test_plugins_can_publish_in_every_hook(self, bench: Bench) -> None:
        other, hearer = await bench.cluster(), Hearer()
        await other.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        cluster = await bench.cluster(plugins=[_Talkative])
        await cluster.stop()

        hooks = ["before_load", "load", "after_start", "before_stop"]
        assert await hearer.hears(4) == hooks
        assert bench.reports("broadcast.gap") == []

    async def test_what_arrives_while_plugins_load_is_handled_after(self, bench: Bench) -> None:
        other, plugin = await bench.cluster(), _Slow()
        cluster = await bench.cluster(plugins=[plugin], start=False)
        async with asyncio.TaskGroup() as group:
            group.create_task(cluster.start())
            await plugin.loading.wait()
            for number in range(3):
                await other.pubsub.publish(CHANNEL, number)
            await eventually(lambda: cluster.pubsub.stats()[CHANNEL].waiting == 3)
            assert plugin.hearer.messages == []
            plugin.gate.set()

        assert await plugin.hearer.hears(3) == [0, 1, 2]

    async def test_messages_are_handled_while_plugins_stop(self, bench: Bench) -> None:
        plugin = _Slow()
        plugin.gate.set()
        cluster = await bench.cluster(plugins=[plugin])

        await cluster.stop()

        assert plugin.hearer.messages == ["stopping"]

    async def test_a_stopped_instance_starts_again_with_its_subscriptions(
        self, bench: Bench
    ) -> None:
        sender, cluster, hearer = await bench.cluster(), await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        for number in range(4):
            await sender.pubsub.publish(CHANNEL, number)
            await hearer.hears(number + 1)
            await cluster.stop()
            await sender.pubsub.publish(CHANNEL, "while it was stopped")
            await cluster.start()

        assert hearer.messages == [0, 1, 2, 3]
        assert bench.reports("broadcast.gap") == []

    async def test_subscriptions_change_while_stopped(self, bench: Bench) -> None:
        cluster, leaving, coming = await bench.cluster(), Hearer(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, leaving.handle)
        await cluster.stop()
        await cluster.pubsub.unsubscribe(CHANNEL, leaving.handle)
        await cluster.pubsub.subscribe(CHANNEL, coming.handle)
        await cluster.start()

        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)

        assert await coming.hears() == [1]
        assert leaving.messages == []

    async def test_stop_waits_for_the_call_under_way(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        hearer = Hearer(holds(gate))
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        for number in range(3):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)
        await hearer.begins()

        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(cluster.stop())
            await asyncio.sleep(0.1)
            assert not stopping.done()
            gate.set()

        assert (hearer.messages, hearer.ended) == ([0], 1)

    async def test_a_call_that_does_not_end_is_cut_short_at_stop(self, bench: Bench) -> None:
        cluster = await bench.cluster(close_grace=0.1)
        hearer = Hearer(holds(asyncio.Event()))
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
        await hearer.begins()

        async with asyncio.timeout(15):
            await cluster.stop()

        assert hearer.active == 0
        assert cluster.pubsub.stats()[CHANNEL].failed == 1

    async def test_an_instance_that_was_left_is_no_trouble_to_others(self, bench: Bench) -> None:
        staying, leaving, hearer = await bench.cluster(), await bench.cluster(), Hearer()
        await staying.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await leaving.pubsub.publish(CHANNEL, 1)
        await hearer.hears()
        await leaving.stop()

        await staying.pubsub.publish(CHANNEL, 2, skip_self=False)
        newcomer = await bench.cluster()
        await newcomer.pubsub.publish(CHANNEL, 3)

        assert await hearer.hears(3) == [1, 2, 3]
        assert bench.reports("broadcast.gap") == []
