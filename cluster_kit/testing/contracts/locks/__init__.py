"""The contract of lock adapters.

An adapter's tests are one class::

    class TestMyLocks(LockContract):
        features = Features(fair=False)

        async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
            return MyEnvironment()

Every scenario is inherited; those that need what `Features` rule out are dropped, and the run
says which. pytest and pytest-asyncio run them, in strict and in auto mode.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.locks.acquiring import AcquiringScenarios
from cluster_kit.testing.contracts.locks.base import Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench, Room
from cluster_kit.testing.contracts.locks.bodies import BodyScenarios
from cluster_kit.testing.contracts.locks.environment import Environment, Features
from cluster_kit.testing.contracts.locks.exclusion import ExclusionScenarios
from cluster_kit.testing.contracts.locks.faults import FaultScenarios
from cluster_kit.testing.contracts.locks.leading import LeadingScenarios
from cluster_kit.testing.contracts.locks.leases import LeaseScenarios
from cluster_kit.testing.contracts.locks.lifecycle import LifecycleScenarios
from cluster_kit.testing.contracts.locks.rates import RateScenarios
from cluster_kit.testing.contracts.locks.semaphores import SemaphoreScenarios

__all__ = ["Bench", "Environment", "Features", "LockContract", "Room", "Scenarios"]


class LockContract(
    ExclusionScenarios,
    AcquiringScenarios,
    LeaseScenarios,
    BodyScenarios,
    LeadingScenarios,
    SemaphoreScenarios,
    RateScenarios,
    FaultScenarios,
    LifecycleScenarios,
):
    """All of it."""
