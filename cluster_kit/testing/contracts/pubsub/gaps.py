"""Scenarios: an instance that was cut off gets what it missed, or is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.pubsub.base import (
    CHANNEL,
    EACH_KEEPING_TRANSPORT,
    EACH_TRANSPORT,
    Scenarios,
)
from cluster_kit.testing.hearer import Hearer, holds
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.testing.contracts.pubsub.bench import Bench


@pytest.mark.asyncio
class GapScenarios(Scenarios):
    """`on_gap` is called once, and only where something may be missing."""

    @pytest.mark.needs("link_faults")
    @EACH_TRANSPORT
    async def test_each_loss_of_the_link_can_be_seen_afterwards(
        self, bench: Bench, transport: Transport
    ) -> None:
        cluster = await bench.cluster(transport=transport)
        manager = cluster.pubsub
        assert manager.linked_since(CHANNEL) is None
        await manager.subscribe(CHANNEL, Hearer().handle)

        seen = [manager.linked_since(CHANNEL)]
        for _ in range(2):
            await manager.publish(CHANNEL, "well")
            assert manager.linked_since(CHANNEL) == seen[-1]
            assert manager.can_publish()
            async with bench.outage(cluster):
                await eventually(lambda: manager.linked_since(CHANNEL) is None)
                await eventually(lambda: not manager.can_publish())
            await eventually(lambda: manager.linked_since(CHANNEL) is not None)
            seen.append(manager.linked_since(CHANNEL))

        assert None not in seen
        assert len({*seen}) == len(seen)

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_what_passes_by_on_an_ephemeral_channel_is_told_once(self, bench: Bench) -> None:
        sender, cut = await bench.clusters(2, transport="ephemeral")
        hearer = Hearer()
        await cut.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await sender.pubsub.publish(CHANNEL, "before")
        await hearer.hears()

        async with bench.outage(cut):
            await sender.pubsub.publish(CHANNEL, "missed")
        assert await hearer.is_told(timeout=5) == [[CHANNEL]]
        await sender.pubsub.publish(CHANNEL, "after")

        assert await hearer.hears(2) == ["before", "after"]
        await asyncio.sleep(0.5)
        assert hearer.gaps == [[CHANNEL]]  # the hole in the numbers is the same gap
        assert cut.pubsub.stats()[CHANNEL].gaps == 1

    @pytest.mark.needs("link_faults")
    @EACH_KEEPING_TRANSPORT
    async def test_what_is_kept_arrives_after_the_outage(
        self, bench: Bench, transport: Transport
    ) -> None:
        sender, cut = await bench.clusters(2, transport=transport)
        hearer = Hearer()
        await cut.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await sender.pubsub.publish(CHANNEL, 0)
        await hearer.hears()

        async with bench.outage(cut):
            for number in range(1, 50):
                await sender.pubsub.publish(CHANNEL, number)
        await sender.pubsub.publish(CHANNEL, 50)

        assert await hearer.hears(51) == list(range(51))
        assert bench.reports("broadcast.gap") == []

    @pytest.mark.needs("link_faults")
    @EACH_KEEPING_TRANSPORT
    async def test_many_outages_lose_nothing_and_double_nothing(
        self, bench: Bench, transport: Transport
    ) -> None:
        sender, cut = await bench.clusters(2, transport=transport)
        hearer = Hearer()
        await cut.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        for turn in range(4):
            for number in range(10):
                await sender.pubsub.publish(CHANNEL, 20 * turn + number)
            async with bench.outage(cut):
                for number in range(10, 20):
                    await sender.pubsub.publish(CHANNEL, 20 * turn + number)

        assert await hearer.hears(80) == list(range(80))
        assert bench.reports("broadcast.gap") == []

    @pytest.mark.needs("link_faults", "retention")
    @EACH_KEEPING_TRANSPORT
    async def test_what_was_kept_too_short_is_told(
        self, bench: Bench, transport: Transport
    ) -> None:
        sender, cut = await bench.clusters(2, transport=transport)
        hearer = Hearer()
        await cut.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await sender.pubsub.publish(CHANNEL, "before")
        await hearer.hears()

        async with bench.outage(cut):
            for _ in range(3):
                await sender.pubsub.publish(CHANNEL, "forgotten")
            await bench.environment.forget(cut)
        assert await hearer.is_told() == [[CHANNEL]]
        await sender.pubsub.publish(CHANNEL, "after")

        assert await hearer.hears(2) == ["before", "after"]

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_every_subscription_is_told_of_what_it_subscribed(self, bench: Bench) -> None:
        cluster = await bench.cluster(transport="ephemeral")
        exact, pattern = Hearer(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, exact.handle, on_gap=exact.on_gap)
        await cluster.pubsub.subscribe("mails.#", pattern.handle, on_gap=pattern.on_gap)

        async with bench.outage(cluster):
            pass

        assert await exact.is_told() == [[CHANNEL]]
        assert await pattern.is_told() == [["mails.#"]]

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_plain_function_is_told_too(self, bench: Bench) -> None:
        cluster, hearer, told = await bench.cluster(transport="ephemeral"), Hearer(), list[str]()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=told.extend)

        async with bench.outage(cluster):
            pass

        await eventually(lambda: told)
        assert told == [CHANNEL]

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_gap_is_told_in_time_while_a_handler_hangs(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(transport="ephemeral"), asyncio.Event()
        hearer = Hearer(holds(gate))
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)
        await hearer.begins()

        async with bench.outage(cluster):
            pass

        assert await hearer.is_told(timeout=8) == [[CHANNEL]]
        assert hearer.active == 1
        gate.set()
        await hearer.hears()

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_gap_is_told_between_two_messages_where_that_is_soon(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster(transport="ephemeral")
        seen: list[str] = []

        async def handle(_message: object) -> None:
            seen.append("begins")
            await asyncio.sleep(0.1)
            seen.append("ends")

        async def on_gap(_channels: list[str]) -> None:
            seen.append("gap")

        await cluster.pubsub.subscribe(CHANNEL, handle, on_gap=on_gap)
        async with bench.outage(cluster):
            pass
        for _ in range(3):
            await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)

        await eventually(lambda: seen.count("ends") == 3)
        at = seen.index("gap")
        assert at in {0, 2, 4, 6}, f"in the middle of a message: {seen}"

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_failing_on_gap_is_logged_and_messages_go_on(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster, hearer = await bench.cluster(transport="ephemeral"), Hearer()

        async def fail(_channels: list[str]) -> None:
            raise LookupError("the database is away")

        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=fail)
        async with bench.outage(cluster):
            pass
        await eventually(lambda: f"on_gap of {CHANNEL} failed" in caplog.text)
        await cluster.pubsub.publish(CHANNEL, 1, skip_self=False)

        assert await hearer.hears() == [1]

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_gap_that_nobody_asked_to_hear_of_is_logged(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster, hearer = await bench.cluster(transport="ephemeral"), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)

        async with bench.outage(cluster):
            pass

        await eventually(lambda: f"messages on {CHANNEL} may be missing" in caplog.text)
        assert len(bench.reports("broadcast.gap")) == 1

    @pytest.mark.needs("link_faults")
    @EACH_TRANSPORT
    async def test_what_is_subscribed_in_an_outage_is_live_after_it_and_told(
        self, bench: Bench, transport: Transport
    ) -> None:
        sender, cut = await bench.clusters(2, transport=transport)
        hearer = Hearer()

        async with bench.outage(cut):
            async with asyncio.timeout(5):
                await cut.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
            await sender.pubsub.publish(CHANNEL, "missed")

        assert await hearer.is_told() == [[CHANNEL]]
        await sender.pubsub.publish(CHANNEL, "after")
        await eventually(lambda: "after" in hearer.messages)

    @pytest.mark.needs("link_faults")
    @EACH_TRANSPORT
    async def test_what_is_unsubscribed_in_an_outage_is_not_heard_after_it(
        self, bench: Bench, transport: Transport
    ) -> None:
        sender, cut = await bench.clusters(2, transport=transport)
        leaving, staying = Hearer(), Hearer()
        await cut.pubsub.subscribe(CHANNEL, leaving.handle, on_gap=leaving.on_gap)
        await cut.pubsub.subscribe("mails", staying.handle)

        async with bench.outage(cut):
            await sender.pubsub.publish(CHANNEL, "kept or not")
            async with asyncio.timeout(5):
                await cut.pubsub.unsubscribe(CHANNEL, leaving.handle)
        await sender.pubsub.publish("mails", "end")

        await staying.hears()
        assert leaving.messages == []
        assert bench.reports("broadcast.gap", subscription=CHANNEL) == []
