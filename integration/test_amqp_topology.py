from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import ConnectError, TopologyError, Unroutable
from cluster_kit.names import QueueName, new_id
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Taker, bench, raw_channel

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]


async def declare_raw(url: str, name: str, arguments: dict[str, Any]) -> None:
    async with raw_channel(url) as channel:
        await channel.queue_declare(name, durable=True, arguments=arguments)


async def delete_raw(url: str, name: str) -> None:
    async with raw_channel(url) as channel:
        await channel.queue_delete(name)


async def test_a_queue_of_another_type_is_an_error_that_names_the_argument(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        name = made.queue().full
        await declare_raw(rabbitmq, name, {"x-queue-type": "classic"})
        with pytest.raises(TopologyError) as caught:
            await made.adapter.consume(made.queue(), prefetch=1, on_delivery=Taker())
        assert made.adapter.health().status == "ok"  # there is no consumer that could be missing
        with pytest.raises(TopologyError):
            await made.adapter.publish(made.task(), timeout=10.0)

        expected = f"queue '{name}': x-queue-type is 'classic' on the broker, 'quorum' expected"
        assert str(caught.value) == expected
        assert expected in made.adapter.health().detail
        await made.publish(made.task("other"))
        await delete_raw(rabbitmq, name)
        await made.publish(made.task())
        assert made.adapter.health().status == "ok"


async def test_another_crash_limit_shows_as_another_delivery_limit(rabbitmq: str) -> None:
    async with bench(rabbitmq) as first:
        await first.publish(first.task())
        async with bench(rabbitmq, app=first.app, crash_limit=30) as second:
            text = r"x-delivery-limit is '20' on the broker, '40' expected; .* crash_limit: have it"
            with pytest.raises(TopologyError, match=text.replace(" crash", " .*crash")):
                await second.adapter.consume(second.queue(), prefetch=1, on_delivery=Taker())


async def test_a_deleted_queue_is_made_again_under_its_consumer(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        await delete_raw(rabbitmq, made.queue().full)
        await eventually(lambda: len(made.heard("consumer.started")) == 2)
        await made.publish(made.task())

        await eventually(lambda: len(taker.received) == 1)
        assert len(made.heard("consumer.lost")) == 1
        assert made.heard("connection.lost") == []
        await eventually(lambda: made.adapter.health().status == "ok")


async def test_a_deleted_queue_is_made_again_for_a_publish(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        await made.publish(made.task())
        await delete_raw(rabbitmq, made.queue().full)
        await made.publish(made.task())

        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert depth.ready == 1


async def test_a_consumer_whose_queue_turned_bad_says_so_and_recovers(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        name, taker = made.queue().full, Taker(acks=True)
        consumer = await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        await consumer.pause()
        await delete_raw(rabbitmq, name)
        await declare_raw(rabbitmq, name, {"x-queue-type": "classic"})
        await consumer.resume()
        health = await eventually(
            made.adapter.health, lambda health: "x-queue-type is 'classic'" in health.detail
        )
        assert health.status == "degraded"
        await delete_raw(rabbitmq, name)

        await eventually(lambda: made.adapter.health().status == "ok")
        await made.publish(made.task())
        await eventually(lambda: len(taker.received) == 1)


async def test_passive_names_what_is_missing_and_works_with_what_is_there(rabbitmq: str) -> None:
    async with bench(f"{rabbitmq}?declare=passive") as made:
        with pytest.raises(TopologyError, match=r"missing on the broker"):
            await made.adapter.publish(made.task(), timeout=10.0)
        with pytest.raises(TopologyError, match=r"missing on the broker"):
            await made.adapter.consume(made.queue(), prefetch=1, on_delivery=Taker())
        async with bench(rabbitmq, app=made.app) as maker:
            await maker.publish(maker.task())
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        await made.publish(made.task())

        await eventually(lambda: len(taker.received) == 2)


async def test_none_trusts_and_an_unroutable_task_is_told(rabbitmq: str) -> None:
    async with bench(f"{rabbitmq}?declare=none") as made:
        async with bench(rabbitmq, app=made.app) as maker:
            await maker.publish(maker.task())
        await made.publish(made.task())
        with pytest.raises(Unroutable):
            await made.adapter.publish(made.task("nobody"), timeout=10.0)


@pytest.mark.broker_control
@pytest.mark.parametrize("mode", ["none", "auto"])
async def test_a_user_that_may_not_configure_works_with_what_others_made(
    rabbitmq: str, rabbitmq_server: RabbitServer, mode: str
) -> None:
    user = f"user-{new_id()[:8]}"
    given = urlsplit(rabbitmq)
    vhost = given.path.removeprefix("/") or "/"
    await asyncio.to_thread(rabbitmq_server.ctl, "add_user", user, "secret")
    try:
        async with bench(rabbitmq) as maker:
            await maker.publish(maker.task(), delay=0.2)
            app = maker.app
            may_write = rf"^({app}\.tasks|ck\.v1\..*)$"
            may_read = rf"^({app}\..*|ck\.v1\.directory\.{app})$"
            await asyncio.to_thread(
                *(rabbitmq_server.ctl, "set_permissions", "-p", vhost, user),
                *("^$", may_write, may_read),
            )
            netloc = f"{user}:secret@{given.hostname}:{given.port}"
            url = f"{urlunsplit(given._replace(netloc=netloc))}?declare={mode}"
            async with bench(url, app=app) as made:
                taker = Taker(acks=True)
                await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
                await made.publish(made.task(), made.task())
                for delay in (0.2, 0.5):  # along the chain; and where the ladder has a step
                    await made.publish(made.task(), delay=delay)
                await made.adapter.bury(made.dead(made.task()), timeout=10.0)

                await eventually(lambda: len(taker.received) == 5)
                assert await made.adapter.channels() == [made.queue()]
                async with made.adapter.read_dead(made.queue()) as letters:
                    assert len([letter async for letter in letters]) == 1
                with pytest.raises((TopologyError, Unroutable)):
                    await made.adapter.publish(made.task("new"), timeout=10.0)
    finally:
        await asyncio.to_thread(rabbitmq_server.ctl, "delete_user", user)


async def test_the_names_of_the_broker_s_own_queues_are_refused(rabbitmq: str) -> None:
    queue = QueueName(None, "amq.mails")
    async with bench(rabbitmq) as made:
        with pytest.raises(TopologyError):
            await made.adapter.consume(queue, prefetch=1, on_delivery=Taker())
        with pytest.raises(TopologyError):
            await made.adapter.publish(made.task(queue=queue), timeout=5.0)


async def test_applications_share_a_queue_and_agree_on_its_arguments(rabbitmq: str) -> None:
    shared = QueueName(None, f"shared-{new_id()[:8]}")
    async with bench(rabbitmq) as first, bench(rabbitmq) as second:
        taker = Taker(acks=True)
        await first.adapter.consume(shared, prefetch=1, on_delivery=taker)
        await second.publish(second.task(queue=shared))
        await second.publish(second.task(queue=shared), delay=0.1)

        await eventually(lambda: len(taker.received) == 2)
        assert await first.adapter.channels() == []


async def test_channels_lists_what_any_instance_made(rabbitmq: str) -> None:
    async with bench(rabbitmq) as first:
        assert await first.adapter.channels() == []
        await first.publish(first.task("b"), first.task("a"), first.task("channels"))
        await delete_raw(rabbitmq, first.queue("b").full)
        await first.publish(first.task("b"), first.task("gone"))
        await delete_raw(rabbitmq, first.queue("gone").full)
        names = [first.queue(channel) for channel in ("a", "b", "channels")]
        async with bench(rabbitmq, app=first.app) as second:
            async with asyncio.TaskGroup() as group:
                reads = [
                    group.create_task(made.adapter.channels())
                    for made in (first, second, first, second, second)
                ]
            assert [read.result() for read in reads] == [names] * 5
            assert await second.adapter.channels() == names


async def test_depth_and_purge_of_nothing(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        assert await made.adapter.depth(made.queue()) is None
        assert await made.adapter.purge(made.queue()) == 0
        await made.publish(made.task(), made.task())
        assert await made.adapter.purge(made.queue()) == 2


async def test_topology_is_declared_again_after_the_broker_lost_it(
    rabbitmq: str, fault_proxy: FaultProxy
) -> None:
    async with bench(fault_proxy.url) as made:
        await made.publish(made.task())
        await delete_raw(rabbitmq, made.queue().full)
        await delete_raw(rabbitmq, made.queue().dead)
        async with raw_channel(rabbitmq) as channel:
            await channel.exchange_delete("ck.v1.back")
        fault_proxy.cut()
        await made.publish(made.task())
        await made.adapter.bury(made.dead(made.task()), timeout=10.0)

        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert (depth.ready, depth.dead) == (1, 1)


async def test_a_missing_exchange_is_made_again_without_a_reconnect(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        await made.publish(made.task())
        async with raw_channel(rabbitmq) as channel:
            await channel.exchange_delete("ck.v1.back")
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(made.publish(made.task(body=json.dumps({}).encode())))

        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert depth.ready == 21


async def test_a_queue_is_not_declared_twice_at_the_same_time(rabbitmq: str) -> None:
    """RabbitMQ 3.10 answers 541 to one of the two, and may keep a queue that takes nothing."""
    async with bench(rabbitmq) as made:

        async def use(channel: str) -> None:
            queue = made.queue(channel)
            async with asyncio.TaskGroup() as group:
                group.create_task(made.adapter.consume(queue, prefetch=1, on_delivery=Taker()))
                group.create_task(made.adapter.publish(made.task(channel), timeout=30.0))

        for number in range(6):
            await asyncio.gather(*(use(f"{number}.{part}") for part in range(4)))
        assert made.heard("connection.lost") == []


@pytest.mark.broker_control
async def test_a_start_names_the_limit_that_keeps_it_from_consuming(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    user, given = f"user-{new_id()[:8]}", urlsplit(rabbitmq)
    vhost = given.path.removeprefix("/") or "/"
    url = urlunsplit(given._replace(netloc=f"{user}:secret@{given.hostname}:{given.port}"))
    commands = [
        ("add_user", user, "secret"),
        ("set_permissions", "-p", vhost, user, ".*", ".*", ".*"),
        ("set_user_limits", user, '{"max-channels": 2}'),
    ]
    for command in commands:
        await asyncio.to_thread(rabbitmq_server.ctl, *command)
    settings = Settings(event_queue={"url": url}, pubsub={"url": "memory://"})
    cluster = Cluster(f"app-{new_id()[:8]}", settings=settings)
    for channel in range(6):
        cluster.event_queue.subscribe(f"channel-{channel}", Recorder().handle)
    try:
        with pytest.raises(ConnectError, match=r"\.channel-\d .* limit of \(?2"):
            await cluster.start()
    finally:
        await cluster.stop()
        await asyncio.to_thread(rabbitmq_server.ctl, "delete_user", user)


@pytest.mark.broker_control
async def test_a_list_of_channels_that_takes_nothing_is_named(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    vhost, policy = urlsplit(rabbitmq).path.removeprefix("/") or "/", f"full-{new_id()[:8]}"
    async with bench(rabbitmq) as made:
        await made.publish(made.task("first"))
        pattern = rf"^ck\.v1\.directory\.{made.app}$"
        setting = ("set_policy", "-p", vhost, "--apply-to", "queues", policy, pattern)
        await asyncio.to_thread(rabbitmq_server.ctl, *setting, '{"max-length":1}')
        try:
            tasks = [made.task(f"channel-{n}") for n in range(9)]  # it takes some before it says no
            with pytest.raises(TopologyError, match=f"directory.{made.app}.* limit its length"):
                await made.publish(*tasks)
        finally:
            await asyncio.to_thread(rabbitmq_server.ctl, "clear_policy", "-p", vhost, policy)
