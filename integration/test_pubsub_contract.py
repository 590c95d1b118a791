from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cluster_kit.testing.contracts.common import ProxiedEnvironment
from cluster_kit.testing.contracts.pubsub import Bench, Environment, PubSubContract, Scenarios
from cluster_kit.testing.contracts.pubsub.delivery import DeliveryScenarios
from cluster_kit.testing.contracts.pubsub.handlers import HandlerScenarios
from cluster_kit.testing.contracts.pubsub.lifecycle import LifecycleScenarios
from cluster_kit.testing.contracts.pubsub.outages import OutageScenarios
from cluster_kit.testing.contracts.pubsub.subscriptions import SubscriptionScenarios
from integration import other_client

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.cluster import Cluster

pytestmark = pytest.mark.broker


class RabbitEnvironment(ProxiedEnvironment, Environment):
    def __init__(self, server_url: str, transport: Transport) -> None:
        super().__init__(server_url)
        self._transport = transport
        self._sources: dict[str, set[str]] = {}

    def prepare(self, cluster: Cluster) -> None:
        """Learn which queues and streams it reads."""
        sources = self._sources.setdefault(cluster.instance_id, set())

        def note(event: str, fields: Mapping[str, object]) -> None:
            if event == "consumer.started":
                sources.add(str(fields["queue"]))

        cluster.telemetry.subscribe(note)

    async def forget(self, cluster: Cluster) -> None:
        for name in self._sources[cluster.instance_id]:
            await asyncio.to_thread(other_client.delete_queue, self.server_url, name)

    async def put(self, app: str, channel: str, body: bytes) -> None:
        exchange = f"{app}.pubsub.{self._transport}"
        await asyncio.to_thread(other_client.publish, self.server_url, exchange, channel, body)


class RabbitBench(Bench):
    """Its instances have one transport, unless a scenario names another."""

    def __init__(self, environment: Environment, transport: Transport) -> None:
        super().__init__(environment)
        self._transport = transport

    async def cluster(self, **options: Any) -> Cluster:
        return await super().cluster(**{"transport": self._transport, **options})


class _OnTransport(Scenarios):
    """Scenarios that name no transport run on that of the class."""

    transport: ClassVar[Transport] = "ephemeral"

    def make_bench(self, environment: Environment) -> Bench:
        return RabbitBench(environment, self.transport)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return RabbitEnvironment(request.getfixturevalue("contract_vhost"), self.transport)


class TestEphemeral(_OnTransport, PubSubContract):
    """All of it, every transport that a scenario names included."""


class _Transported(
    DeliveryScenarios, SubscriptionScenarios, HandlerScenarios, OutageScenarios, LifecycleScenarios
):
    """The groups in which it makes a difference how messages travel.

    Debounce, buffers and wrong use are the library's own and the same on every transport;
    scenarios of gaps and of sync messages name their transport.
    """


@pytest.mark.slow
class TestSticky(_OnTransport, _Transported):
    transport: ClassVar[Transport] = "sticky"


@pytest.mark.slow
class TestStream(_OnTransport, _Transported):
    transport: ClassVar[Transport] = "stream"
