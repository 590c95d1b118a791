"""What wrong numbers and a name that is used twice cost on RabbitMQ."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pika
import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.testing.hearer import Hearer
from integration.other_client import publish

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport

pytestmark = [pytest.mark.broker, pytest.mark.asyncio, pytest.mark.timeout(120)]

CHANNEL = "prices.changed"
ALL: tuple[Transport, ...] = ("ephemeral", "sticky", "stream")


def instance(url: str, name: str, transport: Transport) -> Cluster:
    settings = Settings(
        instance_id=name,
        event_queue={"url": "memory://"},
        locks={"url": "memory://"},
        pubsub={"url": url, "transport": transport},
    )
    return Cluster("shop", settings=settings)


@pytest.mark.parametrize("transport", ALL)
async def test_forged_and_malformed_numbers_silence_nobody(
    rabbitmq: str, transport: Transport
) -> None:
    async with (
        instance(rabbitmq, "a", transport) as sender,
        instance(rabbitmq, "b", transport) as b,
    ):
        hearer = Hearer()
        await b.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await sender.pubsub.publish(CHANNEL, 1)
        await hearer.hears()
        epoch = sender.pubsub._numbering._counters[CHANNEL].epoch
        wrong = (2**62, -1, "seven", 2**62 + 5, True)
        for number in wrong:
            headers = {"ck-origin": "a", "ck-epoch": epoch, "ck-seq": number}
            properties = pika.BasicProperties(headers=headers)
            exchange = f"shop.pubsub.{transport}"
            await asyncio.to_thread(publish, rabbitmq, exchange, CHANNEL, b"0", properties)
        for number in range(2, 20):
            await sender.pubsub.publish(CHANNEL, number)

        assert await hearer.hears(24) == [1, *[0] * len(wrong), *range(2, 20)]
        assert {channel for gap in await hearer.is_told() for channel in gap} == {CHANNEL}
        stats = b.pubsub.stats()[CHANNEL]
        assert (stats.gaps, stats.malformed, stats.repeated) == (2, 3, 0)


@pytest.mark.parametrize("transport", ALL)
async def test_two_processes_with_one_id_hear_each_other_and_are_degraded(
    rabbitmq: str, transport: Transport
) -> None:
    async with instance(rabbitmq, "a", transport) as one, instance(rabbitmq, "a", transport) as two:
        hearers = Hearer(), Hearer()
        for cluster, hearer in zip((one, two), hearers, strict=True):
            await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        for number in range(10):
            await one.pubsub.publish(CHANNEL, number)
            await two.pubsub.publish(CHANNEL, -number)

        assert await hearers[0].hears(10) == [-number for number in range(10)]
        assert await hearers[1].hears(10) == list(range(10))
        assert [hearer.gaps for hearer in hearers] == [[], []]
        for cluster in (one, two):
            health = cluster.health()["adapters"]["pubsub"]
            assert health["status"] == "degraded"
            assert "another living process has instance id 'a' too" in health["detail"]


@pytest.mark.parametrize("transport", ALL)
async def test_an_instance_that_was_restarted_is_no_twin_of_itself(
    rabbitmq: str, transport: Transport
) -> None:
    async with instance(rabbitmq, "b", transport) as witness:
        seen = Hearer()
        await witness.pubsub.subscribe(CHANNEL, seen.handle, on_gap=seen.on_gap)
        for life in range(3):
            hearer = Hearer()
            async with instance(rabbitmq, "a", transport) as restarted:
                await restarted.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
                for _ in range(3):
                    await restarted.pubsub.publish(CHANNEL, life, skip_self=False)
                assert await hearer.hears(3) == [life] * 3
                assert restarted.health()["status"] == "ok"

        assert await seen.hears(9) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert seen.gaps == []
