from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest

from cluster_kit.testing.contracts.outbox import Environment, Features, OutboxContract
from integration.database import empty

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cluster_kit.testing.servers import PostgresServer, RabbitServer

pytestmark = pytest.mark.broker


class PostgresEnvironment(Environment):
    """A database and a virtual host for all."""

    def __init__(self, server: PostgresServer, url: str, driver: str, broker: str) -> None:
        self._server, self._url, self._driver, self._broker = server, url, driver, broker

    def url(self) -> str:
        return self._url.replace("postgresql:", f"postgresql+{self._driver}:", 1)

    def blocking_url(self) -> str:
        return self._url.replace("postgresql:", "postgresql+psycopg:", 1)

    def broker(self) -> str:
        return self._broker

    @asynccontextmanager
    async def unwritable(self) -> AsyncGenerator[None]:
        await asyncio.to_thread(self._set, "default_transaction_read_only = on")
        yield
        await asyncio.to_thread(self._set, "default_transaction_read_only = off")

    def _set(self, what: str) -> None:
        name = self._url.rpartition("/")[2]
        self._server.execute(f'ALTER DATABASE "{name}" SET {what}')
        # Only new connections hear of it.
        self._server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    async def stop_database(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_database(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def close(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # as below, while it is known whose connections these are


@pytest.fixture(scope="module")
def virtual_host(rabbitmq_server: RabbitServer) -> str:
    # One for all scenarios: they keep apart by the names of their applications.
    return rabbitmq_server.new_url()


@pytest.fixture(scope="module")
def server_of_our_own(postgresql_server: PostgresServer) -> PostgresServer:
    if not postgresql_server.can_control:
        pytest.skip(f"{postgresql_server.origin} is not ours to stop")
    return postgresql_server


@pytest.fixture(scope="module")
def database(server_of_our_own: PostgresServer) -> str:
    return server_of_our_own.new_url()


class _OnPostgres(OutboxContract):
    driver: ClassVar[str]

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        database = request.getfixturevalue("database")
        await asyncio.to_thread(empty, database)
        return PostgresEnvironment(
            request.getfixturevalue("server_of_our_own"),
            database,
            self.driver,
            request.getfixturevalue("virtual_host"),
        )


@pytest.mark.slow
class TestThroughAsyncpg(_OnPostgres):
    driver: ClassVar[str] = "asyncpg"


# SQLAlchemy lets go of the connections of a pool that it invalidates without closing them.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.slow
class TestThroughPsycopg(_OnPostgres):
    driver: ClassVar[str] = "psycopg"
    features: ClassVar[Features] = Features(tells=False)
