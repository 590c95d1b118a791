from __future__ import annotations

import pytest

from cluster_kit.testing.contracts.transactions import Environment, TransactionContract

pytestmark = pytest.mark.slow


class TestPostgresqlTransactions(TransactionContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        address = str(request.getfixturevalue("postgresql")).removeprefix("postgresql://")
        return Environment(f"postgresql+psycopg://{address}", f"postgresql+asyncpg://{address}")
