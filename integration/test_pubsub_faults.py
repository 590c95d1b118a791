"""What becomes of broadcasts when connections, the broker or what it keeps go away."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cluster_kit.settings.groups import PubSubValues
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.factory import ClusterFactory
    from cluster_kit.testing.servers import RabbitServer

pytestmark = [pytest.mark.broker, pytest.mark.asyncio, pytest.mark.timeout(240)]

CHANNEL = "prices.changed"
INSTANCES = 8
MESSAGES = 2000
KEEPING: tuple[Transport, ...] = ("sticky", "stream")
ALL: tuple[Transport, ...] = ("ephemeral", *KEEPING)

CLOSE_SOME = """
    Ours = [P || P <- rabbit_networking:connections(),
                 (catch rabbit_networking:connection_info(P, [vhost])) == [{vhost, <<"%s">>}]],
    Some = fun(_) -> rand:uniform(3) == 1 end,
    [begin [catch rabbit_networking:close_connection(P, "a test") || P <- Ours, Some(P)],
           timer:sleep(400) end || _ <- lists:seq(1, 5)],
    ok.
"""


async def hearers(clusters: list[Cluster]) -> list[Hearer]:
    made = [Hearer() for _ in clusters]
    for cluster, hearer in zip(clusters, made, strict=True):
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
    return made


def has_heard(hearer: Hearer, message: object) -> bool:
    return message in hearer.messages


def is_well(clusters: list[Cluster]) -> bool:
    return {cluster.health()["adapters"]["pubsub"]["status"] for cluster in clusters} == {"ok"}


@pytest.mark.broker_control
@pytest.mark.slow
@pytest.mark.parametrize("transport", ALL)
async def test_instances_whose_connections_are_killed_hear_all_in_order_or_are_told(
    cluster_factory: ClusterFactory,
    rabbitmq_server: RabbitServer,
    rabbitmq: str,
    transport: Transport,
) -> None:
    clusters = await cluster_factory(
        INSTANCES + 1,
        pubsub={"url": rabbitmq, "transport": transport, "publish_timeout": 60},
    )
    publisher, *others = clusters
    made = await hearers(others)

    async def publish_all() -> None:
        for number in range(MESSAGES):
            await publisher.pubsub.publish(CHANNEL, number)

    publishing = asyncio.create_task(publish_all(), name="taker publishes")
    code = CLOSE_SOME % rabbitmq.rpartition("/")[2]
    while not publishing.done():
        await asyncio.to_thread(rabbitmq_server.ctl, "eval", code)
    await publishing
    await eventually(lambda: is_well(clusters))
    await publisher.pubsub.publish(CHANNEL, "end")

    for hearer in made:
        await eventually(partial(has_heard, hearer, "end"))
        numbers = hearer.messages[:-1]
        expected = {*range(MESSAGES)}
        assert numbers == sorted(expected & {*numbers}), "not in the publisher's order"
        if transport in KEEPING:
            assert numbers == list(range(MESSAGES))
            assert hearer.gaps == []
        elif len(numbers) < MESSAGES:
            await hearer.is_told()


@pytest.mark.broker_control
async def test_what_is_unsubscribed_in_an_outage_is_not_kept_after_it(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str
) -> None:
    async with FaultProxy(rabbitmq) as proxy:
        [cluster] = await cluster_factory(pubsub={"url": proxy.url, "transport": "sticky"})
        hearer = Hearer()
        await cluster.pubsub.subscribe("keep", hearer.handle, on_gap=hearer.on_gap)
        leaving = [await cluster.pubsub.subscribe(f"leave.{n}.#", hearer.handle) for n in range(3)]

        proxy.refuse()
        await eventually(lambda: not is_well([cluster]))
        for subscription in leaving:
            await subscription.close()
        proxy.resume()

        listed = ("list_bindings", "-q", "-p", rabbitmq.rpartition("/")[2], "source_name")
        exchange = f"{cluster_factory.name}.pubsub.sticky"

        async def keys() -> list[str]:
            text = await asyncio.to_thread(rabbitmq_server.ctl, *listed, "routing_key")
            rows = [line.split() for line in text.splitlines()]
            return sorted(row[1] for row in rows if row[0] == exchange)

        await eventually(keys, ["keep"].__eq__, timeout=60)  # rabbitmqctl is slow
        await cluster.pubsub.publish("keep", 1, skip_self=False)
        assert await hearer.hears() == [1]
        assert hearer.gaps == []
        await cluster.stop()


@pytest.mark.broker_control
async def test_a_stop_that_meets_a_subscribe_leaves_no_queue(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str
) -> None:
    choice: dict[str, Transport] = {"s.#": "sticky", "t.#": "stream"}
    for turn in range(10):
        [cluster] = await cluster_factory(pubsub={"url": rabbitmq, "transports": choice})
        subscribing = asyncio.create_task(
            cluster.pubsub.subscribe("#", Hearer().handle), name="taker subscribes"
        )
        await asyncio.sleep(turn * 0.005)
        await cluster.stop()
        await asyncio.wait({subscribing})

    listed = ("list_queues", "-q", "-p", rabbitmq.rpartition("/")[2], "name")
    queues = await asyncio.to_thread(rabbitmq_server.ctl, *listed)
    assert f"keep.{cluster_factory.name}." not in queues


@pytest.mark.own_broker
@pytest.mark.slow
async def test_a_restart_of_the_broker_costs_nothing_that_it_keeps(
    cluster_factory: ClusterFactory, own_rabbitmq_server: RabbitServer, own_rabbitmq: str
) -> None:
    clusters = await cluster_factory(
        2,
        pubsub={
            "url": own_rabbitmq,
            "transports": {f"{transport}.#": transport for transport in ALL},
            "publish_timeout": 90,
        },
    )
    made = {transport: Hearer() for transport in ALL}
    for transport, hearer in made.items():
        name = f"{transport}.changed"
        await clusters[1].pubsub.subscribe(name, hearer.handle, on_gap=hearer.on_gap)
    for transport in ALL:
        await clusters[0].pubsub.publish(f"{transport}.changed", 0)
    for hearer in made.values():
        await hearer.hears()

    await asyncio.sleep(3)  # RabbitMQ 3.10 may forget what is younger than a few seconds
    async with asyncio.TaskGroup() as group:
        restart = group.create_task(asyncio.to_thread(own_rabbitmq_server.restart))
        await eventually(lambda: not is_well(clusters))
        for transport in ALL:
            for number in range(1, 20):
                group.create_task(clusters[0].pubsub.publish(f"{transport}.changed", number))
    await restart
    await eventually(lambda: is_well(clusters), timeout=60)
    for transport in ALL:
        await clusters[0].pubsub.publish(f"{transport}.changed", 20)

    for transport in KEEPING:
        assert await made[transport].hears(21) == list(range(21))
        assert made[transport].gaps == []
    await eventually(lambda: 20 in made["ephemeral"].messages)
    assert await made["ephemeral"].is_told() == [["ephemeral.changed"]]


async def test_what_was_on_a_stream_before_an_instance_came_is_never_heard(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    async with FaultProxy(rabbitmq) as proxy:
        [sender] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "stream"})
        for number in range(20):
            await sender.pubsub.publish(CHANNEL, f"old {number}")
        [late] = await cluster_factory(pubsub={"url": proxy.url, "transport": "stream"})
        hearer = Hearer()
        await late.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        proxy.refuse()
        await eventually(lambda: not is_well([late]))
        await sender.pubsub.publish(CHANNEL, "missed")
        proxy.resume()

        assert await hearer.is_told() == [[CHANNEL]]
        await sender.pubsub.publish(CHANNEL, "after")
        assert await hearer.hears() == ["after"]

        proxy.refuse()  # it knows where it is now
        await eventually(lambda: not is_well([late]))
        await sender.pubsub.publish(CHANNEL, "caught up")
        proxy.resume()
        assert await hearer.hears(2) == ["after", "caught up"]
        assert hearer.gaps == [[CHANNEL]]
        await late.stop()


async def test_a_stream_that_was_cut_while_an_instance_was_away_is_a_gap(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    limits = PubSubValues(
        transport="stream", stream_max_bytes=200_000, stream_segment_bytes=100_000
    )
    async with FaultProxy(rabbitmq) as proxy:
        [sender] = await cluster_factory(pubsub={"url": rabbitmq, **limits})
        [away] = await cluster_factory(pubsub={"url": proxy.url, **limits})
        hearer = Hearer()
        await away.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await sender.pubsub.publish(CHANNEL, "before")
        await hearer.hears()

        proxy.refuse()
        await eventually(lambda: not is_well([away]))
        for number in range(200):
            await sender.pubsub.publish(CHANNEL, f"{number} {'x' * 10_000}")
        proxy.resume()

        assert await hearer.is_told() == [[CHANNEL]]
        await sender.pubsub.publish(CHANNEL, "after")
        await eventually(lambda: "after" in hearer.messages)
        assert len(hearer.messages) < 150
        assert hearer.gaps == [[CHANNEL]]
        await away.stop()


async def test_more_than_a_sticky_queue_holds_is_a_gap(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    async with FaultProxy(rabbitmq) as proxy:
        [sender] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "sticky"})
        [away] = await cluster_factory(
            pubsub={"url": proxy.url, "transport": "sticky", "sticky_max_messages": 10}
        )
        hearer = Hearer()
        await away.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        proxy.refuse()
        await eventually(lambda: not is_well([away]))
        for number in range(30):
            await sender.pubsub.publish(CHANNEL, number)
        proxy.resume()

        assert await hearer.is_told() == [[CHANNEL]]
        assert await hearer.hears(10) == list(range(20, 30))
        assert hearer.gaps == [[CHANNEL]]
        await away.stop()


async def test_a_sticky_queue_that_expired_is_a_gap(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    async with FaultProxy(rabbitmq) as proxy:
        [sender] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "sticky"})
        [away] = await cluster_factory(
            pubsub={"url": proxy.url, "transport": "sticky", "sticky_expires": 1}
        )
        hearer = Hearer()
        await away.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        proxy.refuse()
        await eventually(lambda: not is_well([away]))
        await sender.pubsub.publish(CHANNEL, "missed")
        await asyncio.sleep(3)
        proxy.resume()

        assert await hearer.is_told() == [[CHANNEL]]
        await sender.pubsub.publish(CHANNEL, "after")
        assert await hearer.hears() == ["after"]
        await away.stop()


async def test_a_connection_that_only_the_broker_takes_to_be_alive_costs_delay_and_is_known(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    async with FaultProxy(rabbitmq) as proxy:
        [sender] = await cluster_factory(pubsub={"url": rabbitmq, "transport": "sticky"})
        [cut] = await cluster_factory(pubsub={"url": proxy.url, "transport": "sticky"})
        hearer, other = Hearer(), Hearer()
        await cut.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)
        await sender.pubsub.subscribe(CHANNEL, other.handle)
        before = cut.pubsub.linked_since(CHANNEL)

        proxy.abandon()
        await eventually(lambda: "earlier connection" in str(cut.health()["adapters"]["pubsub"]))
        await sender.pubsub.publish(CHANNEL, "late")
        await cut.pubsub.publish(CHANNEL, "told")  # which does not need what is late
        assert await other.hears() == ["told"]
        for _ in range(20):
            assert cut.pubsub.linked_since(CHANNEL) is None
            await asyncio.sleep(0.05)
        assert hearer.messages == []
        new = Hearer()
        await cut.pubsub.subscribe("news", new.handle)  # which does not wait for it either

        proxy.resume()
        assert await hearer.hears() == ["late"]
        await eventually(lambda: cut.pubsub.linked_since(CHANNEL) is not None)
        assert cut.pubsub.linked_since(CHANNEL) != before
        assert is_well([cut])
        assert hearer.gaps == []
        await cut.stop()


@pytest.mark.parametrize("transport", ["ephemeral", "stream"])
async def test_elsewhere_it_costs_nothing(
    cluster_factory: ClusterFactory, rabbitmq: str, transport: Transport
) -> None:
    async with FaultProxy(rabbitmq) as proxy:
        [sender] = await cluster_factory(pubsub={"url": rabbitmq, "transport": transport})
        [cut] = await cluster_factory(pubsub={"url": proxy.url, "transport": transport})
        hearer = Hearer()
        await cut.pubsub.subscribe(CHANNEL, hearer.handle)
        before = cut.pubsub.linked_since(CHANNEL)

        proxy.abandon()
        await eventually(lambda: cut.pubsub.linked_since(CHANNEL) not in {None, before})
        await sender.pubsub.publish(CHANNEL, "at once")
        assert await hearer.hears(timeout=5) == ["at once"]
        await cut.stop()
