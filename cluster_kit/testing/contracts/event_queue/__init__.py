"""The contract of event queue adapters.

An adapter's tests are one class::

    class TestMyEventQueue(EventQueueContract):
        features = Features(frozen_link=False)

        async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
            return MyEnvironment()

Every scenario is inherited; those that need what `Features` rule out are dropped, and the run
says which. pytest and pytest-asyncio run them, in strict and in auto mode.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.event_queue.bad_input import BadInputScenarios
from cluster_kit.testing.contracts.event_queue.base import Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.contracts.event_queue.crashes import CrashScenarios
from cluster_kit.testing.contracts.event_queue.dead_letters import DeadLetterScenarios
from cluster_kit.testing.contracts.event_queue.delivery import DeliveryScenarios
from cluster_kit.testing.contracts.event_queue.environment import (
    Environment,
    Features,
    ForeignMessage,
)
from cluster_kit.testing.contracts.event_queue.faults import FaultScenarios
from cluster_kit.testing.contracts.event_queue.foreign import ForeignScenarios
from cluster_kit.testing.contracts.event_queue.handlers import HandlerScenarios
from cluster_kit.testing.contracts.event_queue.immediate import ImmediateScenarios
from cluster_kit.testing.contracts.event_queue.immediate_faults import ImmediateFaultScenarios
from cluster_kit.testing.contracts.event_queue.lifecycle import LifecycleScenarios
from cluster_kit.testing.contracts.event_queue.outages import OutageScenarios
from cluster_kit.testing.contracts.event_queue.retries import RetryScenarios
from cluster_kit.testing.contracts.event_queue.sharing import SharingScenarios
from cluster_kit.testing.contracts.event_queue.stuck import StuckScenarios
from cluster_kit.testing.contracts.event_queue.timing import TimingScenarios

__all__ = [
    "Bench",
    "Environment",
    "EventQueueContract",
    "Features",
    "ForeignMessage",
    "Scenarios",
]


class EventQueueContract(
    DeliveryScenarios,
    SharingScenarios,
    HandlerScenarios,
    RetryScenarios,
    ImmediateScenarios,
    TimingScenarios,
    DeadLetterScenarios,
    ForeignScenarios,
    BadInputScenarios,
    LifecycleScenarios,
    FaultScenarios,
    ImmediateFaultScenarios,
    CrashScenarios,
    StuckScenarios,
    OutageScenarios,
):
    """All of it."""
