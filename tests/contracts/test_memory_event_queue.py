from __future__ import annotations

import pytest

from cluster_kit.message import Envelope
from cluster_kit.names import QueueName, new_id
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
from cluster_kit_memory.event_queue import MemoryEventQueue
from tests.contracts.memory_environment import OneHub


class MemoryEnvironment(OneHub[MemoryEventQueue], Environment):
    adapter = MemoryEventQueue

    async def put(self, queue: str, message: ForeignMessage) -> None:
        app, _, channel = queue.partition(".")
        envelope = Envelope(
            queue=QueueName(app, channel),
            id=message.message_id or new_id(),
            body=message.body,
            content_type=message.content_type,
            headers=message.headers,
        )
        await self.any_adapter.publish(envelope, timeout=5)


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
