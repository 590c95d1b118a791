from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.transactions import Environment, TransactionContract
from integration.database import empty

if TYPE_CHECKING:
    from cluster_kit.testing.servers import PostgresServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(postgresql_server: PostgresServer) -> Iterator[str]:
    url = postgresql_server.new_url()
    yield url
    postgresql_server.drop(url)


class TestPostgresqlTransactions(TransactionContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        database = str(request.getfixturevalue("database"))
        await asyncio.to_thread(empty, database)
        address = database.removeprefix("postgresql://")
        return Environment(f"postgresql+psycopg://{address}", f"postgresql+asyncpg://{address}")
