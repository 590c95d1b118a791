"""What all scenarios share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
import pytest_asyncio

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


class Scenarios:
    """Base of all groups of scenarios.

    Attributes:
        features: what the adapter can do.
    """

    features: ClassVar[Features] = Features()

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        """Return a fresh environment; `request` gives access to fixtures."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def environment(self, request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
        """The broker of one scenario."""
        environment = await self.make_environment(request)
        yield environment
        await environment.close()

    @pytest_asyncio.fixture
    async def bench(self, environment: Environment) -> AsyncIterator[Bench]:
        """Where a scenario's instances come from; stopped at its end."""
        bench = Bench(environment)
        yield bench
        await bench.close()
