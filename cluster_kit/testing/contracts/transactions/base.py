"""What all scenarios share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
import pytest_asyncio

from cluster_kit.testing.contracts.transactions.bench import Bench
from cluster_kit.testing.contracts.transactions.environment import KINDS, Environment, Features

EACH_KIND = pytest.mark.parametrize("kind", KINDS)
"""Runs a scenario on each kind of session and connection."""


class Scenarios:
    """Base of all groups of scenarios.

    Attributes:
        features: what the database can do.
    """

    features: ClassVar[Features] = Features()

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        """Return a fresh environment; `request` gives access to fixtures."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        """An instance and a database; both are left at the end."""
        bench = await Bench.open(await self.make_environment(request))
        yield bench
        await bench.close()
