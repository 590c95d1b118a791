from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pika
import pytest

from cluster_kit import Reject
from cluster_kit.settings.groups import EventQueueValues
from cluster_kit.testing.contracts.common import ProxiedEnvironment
from cluster_kit.testing.contracts.event_queue import (
    Environment,
    EventQueueContract,
    Features,
    ForeignMessage,
)
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder, always, until
from cluster_kit.testing.waiting import eventually
from integration import other_client

if TYPE_CHECKING:
    from cluster_kit.testing.servers import RabbitServer

pytestmark = pytest.mark.broker


class RabbitEnvironment(ProxiedEnvironment, Environment):
    async def put(self, queue: str, message: ForeignMessage) -> None:
        properties = pika.BasicProperties(
            content_type=message.content_type,
            headers=dict(message.headers) or None,
            message_id=message.message_id,
        )
        await asyncio.to_thread(
            other_client.publish, self.server_url, "", queue, message.body, properties
        )


class TestAmqpEventQueue(EventQueueContract):
    features = Features(
        ttl_after_delay=False,  # on the way through the wait queues a message has no ttl of its own
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return RabbitEnvironment(request.getfixturevalue("contract_vhost"))


@pytest.mark.own_broker
@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.timeout(180)
async def test_a_killed_broker_keeps_every_task_and_everything_goes_on(
    cluster_factory: ClusterFactory, own_rabbitmq_server: RabbitServer, own_rabbitmq: str
) -> None:
    settings = EventQueueValues(publish_timeout=60)
    first, second = await cluster_factory(2, url=own_rabbitmq, event_queue=settings)
    gate, held, recorder = asyncio.Event(), Recorder(), Recorder(always(Reject("buried")))
    second.event_queue.subscribe("doomed", recorder.handle)
    await second.event_queue.publish("doomed", 1)
    await eventually(second.event_queue.dead_letters("doomed").count)
    running = Recorder(until(gate))
    first.event_queue.subscribe("running", running.handle)
    await first.event_queue.publish("running", 1, timeout=300)
    await running.started()
    waiting = await first.event_queue.publish_many("waiting", range(50))

    # RabbitMQ 3.10 may forget a queue that is younger than a few seconds at such an end.
    await asyncio.sleep(5)
    await asyncio.to_thread(own_rabbitmq_server.kill)
    await eventually(lambda: first.health()["status"] != "ok")
    async with asyncio.TaskGroup() as group:
        meanwhile = group.create_task(first.event_queue.publish("waiting", "meanwhile"))
        await asyncio.to_thread(own_rabbitmq_server.start)
    gate.set()
    second.event_queue.subscribe("waiting", held.handle, concurrency=0)

    await eventually(lambda: {*waiting, meanwhile.result()} <= {*held.ids}, timeout=60)
    await running.finished()
    await eventually(lambda: second.health()["status"] == "ok")
    assert await second.event_queue.dead_letters("doomed").count() == 1
    assert len(running.runs) == 1


@pytest.mark.broker_control
@pytest.mark.slow
@pytest.mark.asyncio
async def test_connections_closed_by_the_broker_are_made_again(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str
) -> None:
    [cluster] = await cluster_factory(url=rabbitmq)
    gate = asyncio.Event()
    recorder = Recorder(until(gate))
    cluster.event_queue.subscribe("work", recorder.handle, concurrency=2)
    ids = await cluster.event_queue.publish_many("work", range(10))
    await recorder.started(2)

    await asyncio.to_thread(rabbitmq_server.close_connections, rabbitmq)
    gate.set()

    await recorder.finished(10)
    await eventually(lambda: cluster.health()["status"] == "ok")
    assert sorted(recorder.ids) == sorted(ids)
