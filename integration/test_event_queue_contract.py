from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pika
import pytest

from cluster_kit import Reject
from cluster_kit.settings.groups import EventQueueValues
from cluster_kit.testing.contracts.event_queue import (
    Environment,
    EventQueueContract,
    ForeignMessage,
)
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.recorder import Recorder, always, until
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.servers import RabbitServer

pytestmark = pytest.mark.broker


class RabbitEnvironment(Environment):
    """A virtual host; each instance reaches it through a proxy of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._proxies: dict[str, FaultProxy] = {}

    async def url(self, index: int) -> str:
        proxy = FaultProxy(self._url)
        await proxy.start()
        self._proxies[proxy.url] = proxy
        return proxy.url

    def _proxy(self, cluster: Cluster) -> FaultProxy:
        return self._proxies[cluster.settings.url_for("event_queue").reveal()]

    async def cut_off(self, cluster: Cluster) -> None:
        self._proxy(cluster).refuse()

    async def freeze(self, cluster: Cluster) -> None:
        self._proxy(cluster).freeze()

    async def reconnect(self, cluster: Cluster) -> None:
        self._proxy(cluster).resume()

    async def put(self, queue: str, message: ForeignMessage) -> None:
        await asyncio.to_thread(publish_as_others_do, self._url, queue, message)

    async def close(self) -> None:
        for proxy in self._proxies.values():
            await proxy.close()


def publish_as_others_do(url: str, queue: str, message: ForeignMessage) -> None:
    """With another client than the adapter's: that one adds a message id of its own."""
    properties = pika.BasicProperties(
        content_type=message.content_type,
        headers=dict(message.headers) or None,
        message_id=message.message_id,
    )
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, message.body, properties, mandatory=True)


@pytest.fixture(scope="module")
def virtual_host(rabbitmq_server: RabbitServer) -> str:
    # One for all scenarios: they keep apart by the names of their applications, and the queues
    # that all applications of a virtual host share need not be made again for each.
    return rabbitmq_server.new_url()


class TestAmqpEventQueue(EventQueueContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return RabbitEnvironment(request.getfixturevalue("virtual_host"))


@pytest.mark.own_broker
@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.timeout(180)
async def test_a_killed_broker_keeps_every_task_and_everything_goes_on(
    cluster_factory: ClusterFactory, rabbitmq_server: RabbitServer, rabbitmq: str
) -> None:
    settings = EventQueueValues(publish_timeout=60)
    first, second = await cluster_factory(2, url=rabbitmq, event_queue=settings)
    gate, held, recorder = asyncio.Event(), Recorder(), Recorder(always(Reject("buried")))
    second.event_queue.subscribe("doomed", recorder.handle)
    await second.event_queue.publish("doomed", 1)
    await eventually(second.event_queue.dead_letters("doomed").count)
    running = Recorder(until(gate))
    first.event_queue.subscribe("running", running.handle)
    await first.event_queue.publish("running", 1)
    await running.started()
    waiting = await first.event_queue.publish_many("waiting", range(50))

    # RabbitMQ 3.10 may forget a queue that is younger than a few seconds at such an end.
    await asyncio.sleep(5)
    await asyncio.to_thread(rabbitmq_server.kill)
    await eventually(lambda: first.health()["status"] != "ok")
    async with asyncio.TaskGroup() as group:
        meanwhile = group.create_task(first.event_queue.publish("waiting", "meanwhile"))
        await asyncio.to_thread(rabbitmq_server.start)
    gate.set()
    second.event_queue.subscribe("waiting", held.handle, concurrency=0)

    await eventually(lambda: {*waiting, meanwhile.result()} <= {*held.ids}, timeout=60)
    await running.finished()
    await eventually(lambda: second.health()["status"] == "ok")
    assert await second.event_queue.dead_letters("doomed").count() == 1
    assert len(running.runs) == 1


@pytest.mark.own_broker
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

    vhost = rabbitmq.rpartition("/")[2]
    await asyncio.to_thread(rabbitmq_server.close_connections, vhost=vhost)
    gate.set()

    await recorder.finished(10)
    await eventually(lambda: cluster.health()["status"] == "ok")
    assert sorted(recorder.ids) == sorted(ids)
