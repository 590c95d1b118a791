"""What all scenarios share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
import pytest_asyncio

from cluster_kit.testing.contracts.outbox.bench import KINDS, Bench
from cluster_kit.testing.contracts.outbox.environment import Environment, Features

CHANNEL = "orders.created"

EACH_KIND = pytest.mark.parametrize("kind", KINDS)
"""Runs a scenario in each kind of session and connection."""


class Scenarios:
    """Base of all groups of scenarios.

    Attributes:
        features: what database and environment can do.
    """

    features: ClassVar[Features] = Features()

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        """Return a fresh environment; `request` gives access to fixtures."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        """Where a scenario's database and instances come from; stopped at its end."""
        environment = await self.make_environment(request)
        bench = Bench(environment)
        await bench.open()
        yield bench
        await bench.close()
        await environment.close()
