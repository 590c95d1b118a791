"""Scenarios: subscribing, patterns, and leaving again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer, holds
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.broadcast import Event
    from cluster_kit.testing.contracts.pubsub.bench import Bench

TURNS = 12


@pytest.mark.asyncio
class SubscriptionScenarios(Scenarios):
    """What is subscribed is heard, once, until it is unsubscribed."""

    async def test_subscribing_is_legal_before_start(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(start=False), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        await cluster.start()

        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)

        assert await hearer.hears() == [1]

    async def test_all_handlers_of_a_channel_are_called(self, bench: Bench) -> None:
        cluster, hearers = await bench.cluster(), [Hearer() for _ in range(3)]
        for hearer in hearers:
            await cluster.pubsub.subscribe(CHANNEL, hearer.handle)

        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)

        for hearer in hearers:
            assert await hearer.hears() == [1]

    async def test_the_same_pair_twice_is_one_delivery(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        first = await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        second = await cluster.pubsub.subscribe(CHANNEL, hearer.handle)

        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
        await cluster.pubsub.publish(CHANNEL, 2, skip_self=False)

        assert await hearer.hears(2) == [1, 2]
        assert first is second

    async def test_the_options_of_the_last_subscription_hold(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, debounce=3600)
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)

        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)

        assert await hearer.hears() == [1]

    @pytest.mark.parametrize(
        ("pattern", "heard"),
        [
            ("orders.*", ["orders.paid", "orders.x"]),
            ("orders.#", ["orders", "orders.paid", "orders.paid.late", "orders.x"]),
            ("#.paid", ["orders.paid", "paid"]),
            ("*.paid.*", ["orders.paid.late"]),
            ("#", ["mails", "orders", "orders.paid", "orders.paid.late", "orders.x", "paid"]),
        ],
    )
    async def test_a_pattern_stands_for_channels(
        self, bench: Bench, pattern: str, heard: list[str]
    ) -> None:
        cluster, hearer, end = await bench.cluster(), Hearer(), Hearer()
        channels = ["mails", "orders", "orders.paid", "orders.paid.late", "orders.x", "paid"]
        await cluster.pubsub.subscribe(pattern, hearer.handle)
        await cluster.pubsub.subscribe("#", end.handle)

        for channel in channels:
            await cluster.pubsub.publish(channel, channel, skip_self=False)

        await end.hears(len(channels))
        assert sorted(map(str, await hearer.hears(len(heard)))) == heard

    @pytest.mark.needs("ephemeral", "sticky", "stream")
    async def test_a_pattern_stands_for_channels_of_every_transport(self, bench: Bench) -> None:
        cluster = await bench.cluster(
            transport="ephemeral", transports={"orders.kept": "sticky", "orders.stream.#": "stream"}
        )
        hearer, apart = Hearer(), Hearer()
        await cluster.pubsub.subscribe("orders.#", hearer.handle)
        await cluster.pubsub.subscribe("orders.kept", apart.handle)

        for channel in ("orders.any", "orders.kept", "orders.stream.one"):
            await cluster.pubsub.publish(channel, channel, skip_self=False)

        assert sorted(map(str, await hearer.hears(3))) == [
            "orders.any",
            "orders.kept",
            "orders.stream.one",
        ]
        assert await apart.hears() == ["orders.kept"]

    async def test_subscriptions_that_overlap_hear_each_message_once(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        exact, pattern, everything = Hearer(), Hearer(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, exact.handle)
        await cluster.pubsub.subscribe("orders.*", pattern.handle)
        await cluster.pubsub.subscribe("#", everything.handle)

        for number in range(3):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)

        for hearer in (exact, pattern, everything):
            assert await hearer.hears(3) == [0, 1, 2]

    async def test_one_handler_may_hear_several_channels(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe("a", hearer.handle)
        await cluster.pubsub.subscribe("b", hearer.handle)

        await cluster.pubsub.publish("a", 1, skip_self=False)
        await hearer.hears(1)
        await cluster.pubsub.publish("b", 2, skip_self=False)

        assert await hearer.hears(2) == [1, 2]

    async def test_unsubscribing_ends_one_handler_and_no_other(self, bench: Bench) -> None:
        cluster, leaving, staying = await bench.cluster(), Hearer(), Hearer()
        for hearer in (leaving, staying):
            await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
        await leaving.hears()

        await cluster.pubsub.unsubscribe(CHANNEL, leaving.handle)
        await cluster.pubsub.publish(CHANNEL, 2, skip_self=False)

        assert await staying.hears(2) == [1, 2]
        assert leaving.messages == [1]

    async def test_unsubscribing_what_is_unknown_is_no_error(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()

        await cluster.pubsub.unsubscribe(CHANNEL, hearer.handle)
        subscription = await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        await subscription.close()
        await subscription.close()
        await cluster.pubsub.unsubscribe(CHANNEL, hearer.handle)

    async def test_a_subscription_is_a_context(self, bench: Bench) -> None:
        cluster, hearer, end = await bench.cluster(), Hearer(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, end.handle)

        async with await cluster.pubsub.subscribe(CHANNEL, hearer.handle) as subscription:
            assert subscription.channel == CHANNEL
            await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
            await hearer.hears()
        await cluster.pubsub.publish(CHANNEL, 2, skip_self=False)

        await end.hears(2)
        assert hearer.messages == [1]

    async def test_closing_waits_for_the_call_under_way_and_begins_no_other(
        self, bench: Bench
    ) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        hearer = Hearer(holds(gate))
        subscription = await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        for number in range(3):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)
        await hearer.begins()

        async with asyncio.TaskGroup() as group:
            closing = group.create_task(subscription.close())
            await eventually(lambda: cluster.pubsub.stats()[CHANNEL].waiting == 0)
            assert not closing.done()
            gate.set()

        assert hearer.messages == [0]
        assert hearer.ended == 1

    async def test_a_handler_may_close_its_own_subscription(self, bench: Bench) -> None:
        cluster, end = await bench.cluster(), Hearer()

        async def leave(_message: object, _event: Event) -> None:
            await cluster.pubsub.unsubscribe(CHANNEL, hearer.handle)

        hearer = Hearer(leave)
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        await cluster.pubsub.subscribe(CHANNEL, end.handle)
        for number in range(3):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)

        await end.hears(3)
        assert await hearer.hears() == [0]

    async def test_coming_back_to_a_channel_is_no_gap(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        hearer = Hearer()
        for number in range(3):
            async with await clusters[1].pubsub.subscribe(
                CHANNEL, hearer.handle, on_gap=hearer.on_gap
            ):
                await clusters[0].pubsub.publish(CHANNEL, number)
                await hearer.hears(number + 1)
            await clusters[0].pubsub.publish(CHANNEL, "unheard")

        assert hearer.messages == [0, 1, 2]
        assert bench.reports("broadcast.gap") == []

    async def test_a_channel_taken_up_as_a_pattern_is_left_is_seldom_a_gap(
        self, bench: Bench
    ) -> None:
        sender, cluster = await bench.clusters(2)
        other, pattern, done = Hearer(), Hearer(), asyncio.Event()
        await cluster.pubsub.subscribe("other", other.handle)  # what all come over stays

        async def publish_on() -> None:
            while not done.is_set():
                await sender.pubsub.publish(CHANNEL, "on")

        async with asyncio.TaskGroup() as group:
            group.create_task(publish_on())
            for turn in range(TURNS):
                hearer = Hearer()
                left = await cluster.pubsub.subscribe("#", pattern.handle)
                await pattern.hears(len(pattern.heard) + 1)
                closing = group.create_task(left.close())
                await asyncio.sleep(0.001 * turn)  # before it, beside it, after it
                async with await cluster.pubsub.subscribe(
                    CHANNEL, hearer.handle, on_gap=hearer.on_gap
                ):
                    await closing
                    await hearer.hears(5)
            done.set()

        # What comes late by the old binding can make what was sent between the two look lost.
        told = [each for each in bench.reports("broadcast.gap") if each["channel"] == CHANNEL]
        assert len(told) <= TURNS // 3
