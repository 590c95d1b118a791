"""What all scenarios share."""

from __future__ import annotations

from typing import ClassVar

from cluster_kit.testing.contracts.cache.bench import Bench
from cluster_kit.testing.contracts.cache.environment import Environment, Features
from cluster_kit.testing.contracts.common import BaseScenarios

KEY = "user:17"


class Scenarios(BaseScenarios[Environment, Bench]):
    """Base of all groups of scenarios.

    Attributes:
        features: what the store can do.
    """

    features: ClassVar[Features] = Features()

    def make_bench(self, environment: Environment) -> Bench:
        """Return a bench on `environment`."""
        return Bench(environment)
