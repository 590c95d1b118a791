"""Scenarios: equal messages that become one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.pubsub.bench import Bench


@pytest.mark.asyncio
class DebounceScenarios(Scenarios):
    """Trailing, for each subscription and payload."""

    async def test_equal_messages_become_one_call_after_the_last(self, bench: Bench) -> None:
        cluster, hearer, end = await bench.cluster(), Hearer(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=2)
        await cluster.pubsub.subscribe(CHANNEL, end.handle)

        for message in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}):
            await cluster.pubsub.publish(CHANNEL, message, skip_self=False)
        await end.hears(3)

        assert hearer.messages == []
        assert await hearer.hears() == [{"a": 1, "b": 2}]
        assert hearer.heard[0].event.seq == 3
        assert cluster.pubsub.stats()[CHANNEL].waiting == 0

    async def test_different_messages_do_not_hold_each_other_up(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=0.1)

        for number in (1, 2, 1, 3, 2):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)

        await eventually(lambda: {*map(str, hearer.messages)} == {"1", "2", "3"})

    async def test_equal_messages_of_two_channels_are_different(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe("orders.*", hearer.handle, debounce=0.1)

        await cluster.pubsub.publish("orders.a", 1, skip_self=False)
        await cluster.pubsub.publish("orders.b", 1, skip_self=False)

        assert await hearer.hears(2) == [1, 1]

    async def test_every_subscription_has_a_debounce_of_its_own(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        hearers = [Hearer(), Hearer()]
        for hearer in hearers:
            await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=0.1)
        at_once = Hearer()
        await cluster.pubsub.subscribe(CHANNEL, at_once.handle)

        for _ in range(3):
            await cluster.pubsub.publish(CHANNEL, "same", skip_self=False)

        for hearer in hearers:
            assert (await hearer.hears())[0] == "same"
        assert await at_once.hears(3) == ["same"] * 3

    async def test_a_steady_stream_is_handled_after_max_wait(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=30, max_wait=30)
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=0.3, max_wait=0.5)

        async with asyncio.timeout(15):
            while not hearer.heard:
                await cluster.pubsub.publish(CHANNEL, "again", skip_self=False)
                await asyncio.sleep(0.05)

        assert hearer.messages[0] == "again"

    async def test_closing_within_the_window_calls_nothing_later(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        subscription = await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=1)
        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
        await eventually(lambda: cluster.pubsub.stats()[CHANNEL].waiting)

        await subscription.close()

        await asyncio.sleep(1.2)
        assert hearer.messages == []

    async def test_stopping_within_the_window_calls_nothing_later(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=1)
        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
        await eventually(lambda: cluster.pubsub.stats()[CHANNEL].waiting)

        await cluster.stop()

        await asyncio.sleep(1.2)
        assert hearer.messages == []
