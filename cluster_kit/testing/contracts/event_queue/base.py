"""What all scenarios share."""

from __future__ import annotations

from typing import ClassVar

from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.common import BaseScenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.contracts.event_queue.environment import Environment, Features

CHANNEL = "mails.send"

AT_ONCE = RetryPolicy(initial_delay=0)
"""Retries without waiting."""

IN_PLACE = RetryPolicy(immediate=2, initial_delay=0.3, factor=10, jitter=0)
"""Two retries in place; those after them are stored."""


class Scenarios(BaseScenarios[Environment, Bench]):
    """Base of all groups of scenarios.

    Attributes:
        features: what the adapter can do.
    """

    features: ClassVar[Features] = Features()

    def make_bench(self, environment: Environment) -> Bench:
        """Return a bench on `environment`."""
        return Bench(environment)
