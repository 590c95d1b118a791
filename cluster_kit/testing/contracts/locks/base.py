"""What all scenarios share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
import pytest_asyncio

from cluster_kit.testing.contracts.locks.bench import Bench
from cluster_kit.testing.contracts.locks.environment import Environment, Features

KEY = "schema"


class Scenarios:
    """Base of all groups of scenarios.

    Attributes:
        features: what the adapter can do.
    """

    features: ClassVar[Features] = Features()

    @property
    def ttl(self) -> float:
        """The shortest that leaves a slow machine time to renew, seconds."""
        return 0.6 if self.features.short_ttl else 3.0

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        """Return a fresh environment; `request` gives access to fixtures."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def environment(self, request: pytest.FixtureRequest) -> AsyncIterator[Environment]:
        """The server of one scenario."""
        environment = await self.make_environment(request)
        yield environment
        await environment.close()

    @pytest_asyncio.fixture
    async def bench(self, environment: Environment) -> AsyncIterator[Bench]:
        """Where a scenario's instances come from; stopped at its end."""
        bench = Bench(environment)
        yield bench
        await bench.close()
