"""What all scenarios share."""

from __future__ import annotations

from typing import ClassVar

from cluster_kit.testing.contracts.common import BaseScenarios
from cluster_kit.testing.contracts.locks.bench import Bench
from cluster_kit.testing.contracts.locks.environment import Environment, Features

KEY = "schema"


class Scenarios(BaseScenarios[Environment, Bench]):
    """Base of all groups of scenarios.

    Attributes:
        features: what the adapter can do.
    """

    features: ClassVar[Features] = Features()

    @property
    def ttl(self) -> float:
        """The shortest that leaves a slow machine time to renew, seconds."""
        return 0.6 if self.features.short_ttl else 3.0

    def make_bench(self, environment: Environment) -> Bench:
        """Return a bench on `environment`."""
        return Bench(environment)
