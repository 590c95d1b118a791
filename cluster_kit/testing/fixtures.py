"""The fixtures of the pytest plugin. What they need is imported when a test asks for them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from cluster_kit.testing.clock import FakeClock
    from cluster_kit.testing.factory import ClusterFactory
    from cluster_kit.testing.proxy import FaultProxy
    from cluster_kit.testing.servers import PlainServer, PostgresServer, RabbitServer
    from cluster_kit.testing.servers.plain import Kind


class _Closable(Protocol):
    def close(self) -> None: ...


S = TypeVar("S", bound=_Closable)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A RabbitMQ for the whole run: given by the environment, in a container, or started here.

    Where there is none the test is skipped with the reason; it fails when ``CI`` is set.
    """
    from cluster_kit.testing.servers import start_rabbitmq

    yield from _kept(start_rabbitmq)


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitServer) -> str:
    """URL of a virtual host of this test's own.

    On a RabbitMQ given by ``CLUSTER_KIT_TEST_AMQP_URL`` without ``CLUSTER_KIT_TEST_AMQP_CTL`` it
    is the URL as given: there, names must keep tests apart.
    """
    return rabbitmq_server.new_url()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PlainServer]:
    """A Redis for the whole run, found as `rabbitmq_server` is."""
    from cluster_kit.testing.servers import REDIS

    yield from _serve(REDIS)


@pytest.fixture
def redis(redis_server: PlainServer) -> str:
    """URL of a Redis that all tests share: the name of an application keeps them apart."""
    return redis_server.url


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[PlainServer]:
    """A memcached for the whole run, found as `rabbitmq_server` is."""
    from cluster_kit.testing.servers import MEMCACHED

    yield from _serve(MEMCACHED)


@pytest.fixture
def memcached(memcached_server: PlainServer) -> str:
    """URL of a memcached that all tests share: the name of an application keeps them apart."""
    return memcached_server.url


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run, found as `rabbitmq_server` is."""
    from cluster_kit.testing.servers import start_postgresql

    yield from _kept(start_postgresql)


@pytest.fixture
def postgresql(postgresql_server: PostgresServer) -> Iterator[str]:
    """URL of a database of this test's own: ``postgresql://…``, to which you add a driver."""
    url = postgresql_server.new_url()
    yield url
    postgresql_server.drop(url)


def _serve(kind: Kind) -> Iterator[PlainServer]:
    from cluster_kit.testing.servers import start_plain

    yield from _kept(lambda: start_plain(kind))


def _kept(start: Callable[[], S]) -> Iterator[S]:
    from cluster_kit.testing.servers import NodeUnavailableError

    try:
        server = start()
    except NodeUnavailableError as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc), pytrace=False)
        pytest.skip(str(exc))
    yield server
    server.close()


@pytest_asyncio.fixture
async def fault_proxy(rabbitmq: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of `rabbitmq` that breaks the link on demand; connect to its `url`."""
    from cluster_kit.testing.proxy import FaultProxy

    async with FaultProxy(rabbitmq) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def cluster_factory(request: pytest.FixtureRequest) -> AsyncIterator[ClusterFactory]:
    """Makes clusters, in memory unless a URL is given, and stops them after the test.

    ``first, second = await cluster_factory(2)``. The test fails when a task outlives them.
    """
    from cluster_kit.testing.factory import ClusterFactory

    asked: Any = request  # not every pytest says of what type its node is
    name, capture = asked.node.nodeid, asked.config.pluginmanager.getplugin("capturemanager")

    def tell(text: str) -> None:
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n{name}: {text}\n")

    factory = ClusterFactory(tell=tell)
    yield factory
    await factory.close()


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands still until the test advances it."""
    from cluster_kit.testing.clock import FakeClock

    return FakeClock()
