"""Caches on RabbitMQ alone, while something that broadcasts need there is not as it should be."""

from __future__ import annotations

import pytest

from cluster_kit.errors import CacheUnavailable, TopologyError
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import raw_channel

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]


async def test_a_channel_of_the_application_that_fails_silences_no_cache(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    one, two = await cluster_factory(
        2,
        pubsub={"url": rabbitmq, "transports": {"news": "stream"}},
        cache={"url": "memory://"},
    )
    here, there = [await c.caches.create_cache("rows") for c in (one, two)]
    async with raw_channel(rabbitmq) as channel:
        await channel.exchange_declare(
            f"{cluster_factory.name}.pubsub.stream", exchange_type="fanout"
        )
    with pytest.raises(TopologyError):
        await one.pubsub.publish("news", 1)
    assert one.health()["adapters"]["pubsub"]["status"] == "degraded"
    await there.set("row", "old")

    await here.delete("row")

    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert here.troubles() == []


async def test_what_could_not_be_told_is_told_when_the_caches_exchange_is_right_again(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    exchange = f"{cluster_factory.name}.cache.ephemeral"
    async with FaultProxy(rabbitmq) as proxy, raw_channel(rabbitmq) as channel:
        [cluster] = await cluster_factory(pubsub={"url": proxy.url}, cache={"url": "memory://"})
        cache = await cluster.caches.create_cache("rows")
        await cache.delete("row")  # everything is there
        proxy.refuse()
        await channel.exchange_delete(exchange)
        await channel.exchange_declare(exchange, exchange_type="fanout")
        proxy.resume()

        async def refused() -> str:
            with pytest.raises(CacheUnavailable) as error:
                await cache.delete("row")
            return str(error.value)

        await eventually(refused, lambda text: text.endswith("'topic' expected"))
        await channel.exchange_delete(exchange)

        await eventually(lambda: cache.troubles() == [])
        assert cache.stats().unsent == 0
