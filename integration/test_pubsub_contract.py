from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import pika
import pytest

from cluster_kit.testing.contracts.pubsub import Environment, PubSubContract
from cluster_kit.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.servers import RabbitServer

pytestmark = pytest.mark.broker


class RabbitEnvironment(Environment):
    """A virtual host; each instance reaches it through a proxy of its own."""

    def __init__(self, url: str, transport: Transport) -> None:
        self._url, self._transport = url, transport
        self._proxies: dict[str, FaultProxy] = {}
        self._sources: dict[str, set[str]] = {}

    async def url(self, index: int) -> str:
        proxy = FaultProxy(self._url)
        await proxy.start()
        self._proxies[proxy.url] = proxy
        return proxy.url

    def prepare(self, cluster: Cluster) -> None:
        """Learn which queues and streams it reads."""
        sources = self._sources.setdefault(cluster.instance_id, set())

        def note(event: str, fields: Mapping[str, object]) -> None:
            if event == "consumer.started":
                sources.add(str(fields["queue"]))

        cluster.telemetry.subscribe(note)

    def _proxy(self, cluster: Cluster) -> FaultProxy:
        return self._proxies[cluster.settings.url_for("pubsub").reveal()]

    async def cut_off(self, cluster: Cluster) -> None:
        self._proxy(cluster).refuse()

    async def reconnect(self, cluster: Cluster) -> None:
        self._proxy(cluster).resume()

    async def forget(self, cluster: Cluster) -> None:
        for name in self._sources[cluster.instance_id]:
            await asyncio.to_thread(delete_queue, self._url, name)

    async def put(self, app: str, channel: str, body: bytes) -> None:
        exchange = f"{app}.pubsub.{self._transport}"
        await asyncio.to_thread(publish_as_others_do, self._url, exchange, channel, body)

    async def close(self) -> None:
        for proxy in self._proxies.values():
            await proxy.close()


def delete_queue(url: str, name: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(name)


def publish_as_others_do(url: str, exchange: str, key: str, body: bytes) -> None:
    """With another client than the adapter's, and without any metadata."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, body)


@pytest.fixture(scope="module")
def virtual_host(rabbitmq_server: RabbitServer) -> str:
    # One for all scenarios: they keep apart by the names of their applications.
    return rabbitmq_server.new_url()


class _OnTransport(PubSubContract):
    """Scenarios that name no transport run on that of the class."""

    transport: ClassVar[Transport] = "ephemeral"

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        request.getfixturevalue("monkeypatch").setenv(
            "CLUSTER_KIT_PUBSUB__TRANSPORT", self.transport
        )
        return RabbitEnvironment(request.getfixturevalue("virtual_host"), self.transport)


class TestEphemeral(_OnTransport):
    pass


@pytest.mark.slow
class TestSticky(_OnTransport):
    transport: ClassVar[Transport] = "sticky"


@pytest.mark.slow
class TestStream(_OnTransport):
    transport: ClassVar[Transport] = "stream"
