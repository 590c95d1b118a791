"""What broadcasts need on the broker: something else is there, or the user may not make it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from cluster_kit.errors import PublishRefused, TopologyError
from cluster_kit.names import new_id
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.broadcast import attachment, queues
from integration.amqp_bench import raw_channel

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.testing.factory import ClusterFactory
    from cluster_kit.testing.servers import RabbitServer

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]

CHANNEL = "prices.changed"
ALL: tuple[Transport, ...] = ("ephemeral", "sticky", "stream")


async def test_a_stream_with_other_arguments_is_named_with_the_argument(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    [first] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "stream"})
    await first.pubsub.publish(CHANNEL, 1)
    [other] = await cluster_factory(
        pubsub={"url": rabbitmq, "transport": "stream", "stream_max_age": 7}
    )

    with pytest.raises(TopologyError, match=r"x-max-age is '3600\w+' on the broker"):
        await other.pubsub.publish(CHANNEL, 2)
    with pytest.raises(TopologyError, match="x-max-age"):
        await other.pubsub.subscribe(CHANNEL, Hearer().handle)

    health = other.health()["adapters"]["pubsub"]
    assert health["status"] == "degraded"
    assert "x-max-age" in health["detail"]
    hearer = Hearer()  # the other transports are not concerned
    await other.sync_messages.subscribe(CHANNEL, hearer.handle)
    await first.sync_messages.publish(CHANNEL, "heard")
    assert await hearer.hears() == ["heard"]


async def test_a_classic_queue_where_the_stream_should_be_is_named(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    async with raw_channel(rabbitmq) as channel:
        name = f"ck.v1.stream.{cluster_factory.name}.pubsub"
        await channel.queue_declare(name, durable=True)
        [cluster] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "stream"})

        with pytest.raises(TopologyError, match="x-queue-type"):
            await cluster.pubsub.subscribe(CHANNEL, Hearer().handle)


async def test_a_queue_with_other_arguments_is_named_with_the_argument(
    cluster_factory: ClusterFactory, rabbitmq: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "own_queue", lambda *_: f"ck.v1.keep.{cluster_factory.name}")
    async with raw_channel(rabbitmq) as channel:
        arguments = {"x-queue-type": "classic", "x-expires": 5000}
        await channel.queue_declare(
            f"ck.v1.keep.{cluster_factory.name}", durable=True, arguments=arguments
        )
        [cluster] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "sticky"})

        with pytest.raises(TopologyError, match="x-expires is '5000' on the broker"):
            await cluster.pubsub.subscribe(CHANNEL, Hearer().handle)
    assert CHANNEL not in cluster.pubsub.stats()


@pytest.mark.parametrize("transport", ALL)
async def test_an_exchange_of_another_kind_is_named(
    cluster_factory: ClusterFactory, rabbitmq: str, transport: Transport
) -> None:
    async with raw_channel(rabbitmq) as channel:
        name = f"{cluster_factory.name}.pubsub.{transport}"
        await channel.exchange_declare(name, exchange_type="fanout", durable=True)
        [cluster] = await cluster_factory(pubsub={"url": rabbitmq, "transport": transport})

        for _ in range(2):
            with pytest.raises(TopologyError, match="type is 'fanout' on the broker"):
                await cluster.pubsub.subscribe(CHANNEL, Hearer().handle)
            with pytest.raises(TopologyError, match="type is 'fanout' on the broker"):
                await cluster.pubsub.publish(CHANNEL, 1)


@asynccontextmanager
async def user(
    server: RabbitServer, url: str, *, configure: str, write: str, read: str
) -> AsyncIterator[str]:
    """A user with these rights; yields the URL for it."""
    name, given = f"user-{new_id()[:8]}", urlsplit(url)
    vhost = given.path.removeprefix("/") or "/"
    await asyncio.to_thread(server.ctl, "add_user", name, "secret")
    try:
        await asyncio.to_thread(
            server.ctl, "set_permissions", "-p", vhost, name, configure, write, read
        )
        netloc = f"{name}:secret@{given.hostname}:{given.port}"
        yield urlunsplit(given._replace(netloc=netloc))
    finally:
        await asyncio.to_thread(server.ctl, "delete_user", name)


@pytest.mark.broker_control
@pytest.mark.parametrize("mode", ["auto", "passive", "none"])
async def test_a_user_that_may_make_its_own_queues_only_has_all_transports(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str, mode: str
) -> None:
    app = cluster_factory.name
    own = rf"^ck\.v1\.(sub|keep)\.{app}\."
    exchanges, stream = rf"^{app}\.(pubsub|sync)\.", rf"^ck\.v1\.stream\.{app}\."
    choice = {f"{transport}.#": transport for transport in ALL}
    [maker] = await cluster_factory(pubsub={"url": rabbitmq, "transports": choice})
    async with user(
        rabbitmq_server,
        rabbitmq,
        configure=own,
        write=f"{own}|{exchanges}",
        read=f"{own}|{exchanges}|{stream}",
    ) as url:
        for transport in ALL:
            await maker.pubsub.publish(f"{transport}.made", 1)
        [cluster] = await cluster_factory(
            pubsub={"url": f"{url}?declare={mode}", "transports": choice}
        )
        for transport in ALL:
            hearer = Hearer()
            await cluster.pubsub.subscribe(f"{transport}.x", hearer.handle)
            await maker.pubsub.publish(f"{transport}.x", 1)
            await cluster.pubsub.publish(f"{transport}.x", 2, skip_self=False)
            assert await hearer.hears(2) == [1, 2]
        assert cluster.health()["adapters"]["pubsub"]["status"] == "ok"
        await cluster.stop()


@pytest.mark.broker_control
async def test_a_user_that_may_make_nothing_is_told_and_has_streams(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str
) -> None:
    choice = {f"{transport}.#": transport for transport in ALL}
    [maker] = await cluster_factory(pubsub={"url": rabbitmq, "transports": choice})
    for transport in ALL:
        await maker.pubsub.publish(f"{transport}.made", 1)
    async with user(rabbitmq_server, rabbitmq, configure="^$", write=".*", read=".*") as url:
        [cluster] = await cluster_factory(pubsub={"url": url, "transports": choice})
        for transport in ("ephemeral", "sticky"):
            with pytest.raises(TopologyError, match="refused"):
                await cluster.pubsub.subscribe(f"{transport}.x", Hearer().handle)
        hearer = Hearer()
        await cluster.pubsub.subscribe("stream.x", hearer.handle)
        await maker.pubsub.publish("stream.x", 1)
        assert await hearer.hears() == [1]
        await cluster.stop()


@pytest.mark.broker_control
async def test_a_user_that_may_not_write_is_told_and_its_other_publishes_go_on(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str
) -> None:
    app = cluster_factory.name
    write = rf"^{app}\.sync\.|^ck\.v1\."
    async with user(rabbitmq_server, rabbitmq, configure=".*", write=write, read=".*") as url:
        first, second = await cluster_factory(2, pubsub={"url": url})
        hearer = Hearer()
        await second.sync_messages.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(first.sync_messages.publish(CHANNEL, number))
            refused = group.create_task(expect_refusal(first.pubsub.publish(CHANNEL, 1)))

        assert refused.done()
        assert await hearer.hears(20) == list(range(20))
        assert hearer.gaps == []
        await eventually(lambda: first.health()["adapters"]["pubsub"]["status"] == "ok")
        for cluster in (first, second):
            await cluster.stop()


@pytest.mark.broker_control
@pytest.mark.parametrize("transport", ALL)
async def test_a_channel_a_user_may_not_publish_on_concerns_no_other(
    cluster_factory: ClusterFactory,
    rabbitmq_server: RabbitServer,
    rabbitmq: str,
    transport: Transport,
) -> None:
    exchange = f"{cluster_factory.name}.pubsub.{transport}"
    async with user(rabbitmq_server, rabbitmq, configure=".*", write=".*", read=".*") as url:
        publisher, other = await cluster_factory(2, pubsub={"url": url, "transport": transport})
        hearer = Hearer()
        await other.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        name, vhost = urlsplit(url).username or "", urlsplit(url).path.removeprefix("/")
        rights = ("set_topic_permissions", "-p", vhost, name, exchange, "^(?!forbidden)", ".*")
        await asyncio.to_thread(rabbitmq_server.ctl, *rights)
        for turn, forbidden in enumerate(("forbidden", "forbidden." + "x" * 190, "forbidden")):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(publisher.pubsub.publish(CHANNEL, 20 * turn + number))
                for _ in range(2):
                    group.create_task(expect_refusal(publisher.pubsub.publish(forbidden, 1)))

        assert await hearer.hears(60) == list(range(60))
        assert hearer.gaps == []
        for cluster in (publisher, other):
            await cluster.stop()


@pytest.mark.broker_control
@pytest.mark.slow
@pytest.mark.parametrize("transport", ["ephemeral", "sticky"])
async def test_a_channel_that_is_forbidden_in_an_outage_costs_no_other_and_is_told_when_it_is_back(
    cluster_factory: ClusterFactory,
    rabbitmq_server: RabbitServer,
    rabbitmq: str,
    monkeypatch: pytest.MonkeyPatch,
    transport: Transport,
) -> None:
    monkeypatch.setattr(attachment, "_TOGETHER", 10)
    exchange = f"{cluster_factory.name}.pubsub.{transport}"
    everything = user(rabbitmq_server, rabbitmq, configure=".*", write=".*", read=".*")
    async with everything as url, FaultProxy(url) as proxy:
        [cluster] = await cluster_factory(pubsub={"url": proxy.url, "transport": transport})
        name, vhost = urlsplit(url).username or "", urlsplit(url).path.removeprefix("/")
        rights = ("set_topic_permissions", "-p", vhost, name, exchange, ".*")
        hearer, forbidden = Hearer(), Hearer()
        for number in range(25):
            await cluster.pubsub.subscribe(f"user.{number}", hearer.handle)
        await cluster.pubsub.subscribe("user.20.x", forbidden.handle, on_gap=forbidden.on_gap)

        def detail() -> str:
            return cluster.health()["adapters"]["pubsub"]["detail"]

        await asyncio.to_thread(rabbitmq_server.ctl, *rights, "^user.[0-9]+$")
        proxy.cut()
        await eventually(detail, re.compile("some broadcasts .* refused").search)
        for number in range(25):
            await cluster.pubsub.publish(f"user.{number}", number, skip_self=False)
        assert sorted(map(str, await hearer.hears(25))) == sorted(map(str, range(25)))
        assert forbidden.gaps == []

        await asyncio.to_thread(rabbitmq_server.ctl, *rights, ".*")
        assert await forbidden.is_told() == [["user.20.x"]]
        await eventually(lambda: cluster.health()["adapters"]["pubsub"]["status"] == "ok")
        await cluster.pubsub.publish("user.20.x", "after", skip_self=False)
        await eventually(lambda: "after" in forbidden.messages)
        await cluster.stop()


async def expect_refusal(publish: object) -> None:
    with pytest.raises(PublishRefused):
        await publish  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]


@pytest.mark.parametrize("transport", ["ephemeral", "sticky"])
async def test_who_lost_an_exchange_hears_again_and_is_told(
    cluster_factory: ClusterFactory,
    rabbitmq: str,
    monkeypatch: pytest.MonkeyPatch,
    transport: Transport,
) -> None:
    monkeypatch.setattr(attachment, "_STEADY", 0.5)
    publisher, other = await cluster_factory(2, pubsub={"url": rabbitmq, "transport": transport})
    hearer = Hearer()
    await other.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
    await publisher.pubsub.publish(CHANNEL, 0)
    await hearer.hears()
    async with raw_channel(rabbitmq) as channel:
        await channel.exchange_delete(f"{cluster_factory.name}.pubsub.{transport}")
    await publisher.pubsub.publish(CHANNEL, 1)  # makes the exchange anew, and nobody is bound to it

    number = 1

    async def heard() -> bool:
        nonlocal number
        number += 1
        await publisher.pubsub.publish(CHANNEL, number)
        return len(hearer.messages) > 1

    await eventually(heard)
    await hearer.is_told()
