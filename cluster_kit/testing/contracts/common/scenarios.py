"""How scenarios of all contracts come by their environment and their bench."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import pytest
import pytest_asyncio

from cluster_kit.testing.contracts.common.bench import BaseBench
from cluster_kit.testing.contracts.common.environment import BaseEnvironment

E = TypeVar("E", bound=BaseEnvironment)
B = TypeVar("B", bound=BaseBench[Any])


class BaseScenarios(Generic[E, B]):
    """Base of a contract's `Scenarios`, which implement `make_bench` and declare `features`."""

    async def make_environment(self, request: pytest.FixtureRequest) -> E:
        """Return a fresh environment; `request` gives access to fixtures."""
        raise NotImplementedError

    def make_bench(self, environment: E) -> B:
        """Return a bench on `environment`."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def environment(self, request: pytest.FixtureRequest) -> AsyncIterator[E]:
        """The server of one scenario."""
        environment = await self.make_environment(request)
        yield environment
        await environment.close()

    @pytest_asyncio.fixture
    async def bench(self, environment: E) -> AsyncIterator[B]:
        """Where a scenario's instances come from; stopped at its end."""
        bench = self.make_bench(environment)
        yield bench
        await bench.close()
