from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from cluster_kit.message import Envelope
from cluster_kit.names import QueueName, new_id
from cluster_kit.ports import AdapterContext, AdapterSpec, EventQueueAdapter
from cluster_kit.testing.contracts.event_queue import (
    Environment,
    EventQueueContract,
    Features,
    ForeignMessage,
)
from cluster_kit.testing.contracts.event_queue.dead_letters import DeadLetterScenarios
from cluster_kit.testing.contracts.event_queue.delivery import DeliveryScenarios
from cluster_kit.testing.contracts.event_queue.faults import FaultScenarios
from cluster_kit.testing.contracts.event_queue.retries import RetryScenarios
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.event_queue import MemoryEventQueue

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class MemoryEnvironment(Environment):
    """One hub; every instance's adapter is kept at hand, to break its link."""

    def __init__(self, query: str = "") -> None:
        self._url = f"memory://{uuid.uuid4().hex}{query}"
        self._adapters: dict[str, MemoryEventQueue] = {}

    async def url(self, index: int) -> str:
        return self._url

    def prepare(self, cluster: Cluster) -> None:
        cluster.registry.register(
            AdapterSpec(
                name=ADAPTER.name,
                schemes=ADAPTER.schemes,
                event_queue=self._make,
                pubsub=ADAPTER.pubsub,
                locks=ADAPTER.locks,
            )
        )

    def _make(self, url: str, context: AdapterContext) -> EventQueueAdapter:
        adapter = self._adapters[context.instance_id] = MemoryEventQueue(url, context)
        return adapter

    async def cut_off(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].disconnect()

    async def reconnect(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].reconnect()

    async def put(self, queue: str, message: ForeignMessage) -> None:
        app, _, channel = queue.partition(".")
        envelope = Envelope(
            queue=QueueName(app, channel),
            id=message.message_id or new_id(),
            body=message.body,
            content_type=message.content_type,
            headers=message.headers,
        )
        adapter = next(iter(self._adapters.values()))
        await adapter.publish(envelope, timeout=5)


FEATURES = Features(
    frozen_link=False,  # there is no wire on which anything could be lost
    foreign_metadata=False,  # there is no way into a hub but the library
)


class TestMemoryEventQueue(EventQueueContract):
    features = FEATURES

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemoryEnvironment()


class TestMemoryEventQueueWithFile(
    DeliveryScenarios, RetryScenarios, DeadLetterScenarios, FaultScenarios
):
    """The groups in which a task goes through every state the file knows."""

    features = FEATURES

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        path = request.getfixturevalue("tmp_path") / "queue.db"
        return MemoryEnvironment(f"?path={path}")
