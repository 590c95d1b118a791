"""The contract of cache stores, and of caches composed of them.

A store's tests are one class::

    class TestMyStore(CacheContract):
        features = Features(lists_keys=False)

        async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
            return MyEnvironment()

Every scenario is inherited; those that need what `Features` rule out are dropped, and the run
says which. pytest and pytest-asyncio run them, in strict and in auto mode.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.cache.ageing import AgeingScenarios
from cluster_kit.testing.contracts.cache.base import Scenarios
from cluster_kit.testing.contracts.cache.bench import Bench
from cluster_kit.testing.contracts.cache.counters import CounterScenarios
from cluster_kit.testing.contracts.cache.environment import Environment, Features
from cluster_kit.testing.contracts.cache.invalidation import InvalidationScenarios
from cluster_kit.testing.contracts.cache.loading import LoadingScenarios
from cluster_kit.testing.contracts.cache.outages import OutageScenarios
from cluster_kit.testing.contracts.cache.races import RaceScenarios
from cluster_kit.testing.contracts.cache.values import ValueScenarios

__all__ = ["Bench", "CacheContract", "Environment", "Features", "Scenarios"]


class CacheContract(
    ValueScenarios,
    CounterScenarios,
    LoadingScenarios,
    AgeingScenarios,
    InvalidationScenarios,
    RaceScenarios,
    OutageScenarios,
):
    """All of it."""
