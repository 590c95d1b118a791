from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pika
import pytest

from cluster_kit.testing.contracts.event_queue import (
    Environment,
    EventQueueContract,
    ForeignMessage,
)
from cluster_kit.testing.proxy import FaultProxy

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
