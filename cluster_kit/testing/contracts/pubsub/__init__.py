"""The contract of publish-subscribe adapters.

An adapter's tests are one class::

    class TestMyPubSub(PubSubContract):
        features = Features(stream=False)

        async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
            return MyEnvironment()

Every scenario is inherited; those that need what `Features` rule out are dropped, and the run
says which. pytest and pytest-asyncio run them, in strict and in auto mode.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.pubsub.bad_input import BadInputScenarios
from cluster_kit.testing.contracts.pubsub.base import Scenarios
from cluster_kit.testing.contracts.pubsub.bench import Bench
from cluster_kit.testing.contracts.pubsub.buffering import BufferingScenarios
from cluster_kit.testing.contracts.pubsub.debounce import DebounceScenarios
from cluster_kit.testing.contracts.pubsub.delivery import DeliveryScenarios
from cluster_kit.testing.contracts.pubsub.environment import Environment, Features
from cluster_kit.testing.contracts.pubsub.gaps import GapScenarios
from cluster_kit.testing.contracts.pubsub.handlers import HandlerScenarios
from cluster_kit.testing.contracts.pubsub.lifecycle import LifecycleScenarios
from cluster_kit.testing.contracts.pubsub.outages import OutageScenarios
from cluster_kit.testing.contracts.pubsub.subscriptions import SubscriptionScenarios
from cluster_kit.testing.contracts.pubsub.sync_messages import SyncMessageScenarios

__all__ = ["Bench", "Environment", "Features", "PubSubContract", "Scenarios"]


class PubSubContract(
    DeliveryScenarios,
    SubscriptionScenarios,
    HandlerScenarios,
    DebounceScenarios,
    BufferingScenarios,
    GapScenarios,
    OutageScenarios,
    SyncMessageScenarios,
    LifecycleScenarios,
    BadInputScenarios,
):
    """All of it."""
