"""What all scenarios share."""

from __future__ import annotations

from typing import ClassVar

import pytest

from cluster_kit.testing.contracts.common import BaseScenarios
from cluster_kit.testing.contracts.pubsub.bench import Bench
from cluster_kit.testing.contracts.pubsub.environment import Environment, Features

CHANNEL = "orders.changed"

EACH_TRANSPORT = pytest.mark.parametrize(
    "transport",
    [
        pytest.param("ephemeral", marks=pytest.mark.needs("ephemeral")),
        pytest.param("sticky", marks=pytest.mark.needs("sticky")),
        pytest.param("stream", marks=pytest.mark.needs("stream")),
    ],
)
"""Runs a scenario on each transport the adapter has."""

EACH_KEEPING_TRANSPORT = pytest.mark.parametrize(
    "transport",
    [
        pytest.param("sticky", marks=pytest.mark.needs("sticky")),
        pytest.param("stream", marks=pytest.mark.needs("stream")),
    ],
)
"""Runs a scenario on each transport that keeps messages for an instance that is cut off."""


class Scenarios(BaseScenarios[Environment, Bench]):
    """Base of all groups of scenarios.

    Attributes:
        features: what the adapter can do.
    """

    features: ClassVar[Features] = Features()

    def make_bench(self, environment: Environment) -> Bench:
        """Return a bench on `environment`."""
        return Bench(environment)
