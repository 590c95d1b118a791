"""Requests that reach a server long after they were given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import LockLost, LockUnavailable
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import MEMCACHED, REDIS, PlainServer
from cluster_kit.testing.waiting import eventually
from integration.locks_bench import own_server, running

KEY = "schema"


class Holding:
    """Passes bytes on; `hold` keeps back what those connections send that there are now.

    It reaches the server at `let_go`, although its sender has gone since, as what is sent again
    by a network that was broken for one flow.

    Attributes:
        kept: set when there is something that was kept back.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._gates: list[asyncio.Event] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._clients: list[asyncio.StreamWriter] = []
        self.kept = asyncio.Event()

    async def start(self) -> str:
        """Return the URL by which it is the server."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        return self._parts._replace(netloc=f"127.0.0.1:{port}").geturl()

    async def close(self) -> None:
        self._listening.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.wait(self._pumps)

    def hold(self) -> None:
        for gate in self._gates:
            gate.clear()

    def cut(self) -> None:
        """Close the connections to clients that there are now."""
        for client in self._clients:
            client.close()

    def let_go(self) -> None:
        for gate in self._gates:
            gate.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(
            self._parts.hostname, self._parts.port
        )
        gate, open_gate = asyncio.Event(), asyncio.Event()
        gate.set()
        open_gate.set()
        self._gates.append(gate)
        self._clients.append(writer)
        self._pumps += (
            asyncio.ensure_future(self._pump(reader, to_server, gate)),
            asyncio.ensure_future(self._pump(from_server, writer, open_gate)),
        )

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(65536):
                    if not gate.is_set():
                        self.kept.set()
                        await gate.wait()
                    target.write(data)
                    await target.drain()
                await gate.wait()
                target.write_eof()
                await source.read()
        finally:
            target.close()


@pytest.fixture(params=[REDIS, MEMCACHED], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[PlainServer]:
    with own_server(request.param) as server:
        yield server


@pytest_asyncio.fixture
async def holding(server: PlainServer) -> AsyncIterator[Holding]:
    proxy = Holding(server.url)
    yield proxy
    await proxy.close()


@pytest.mark.asyncio
async def test_an_extension_that_arrives_late_does_not_shorten_a_later_one(
    server: PlainServer, holding: Holding
) -> None:
    async with running(await holding.start()) as cluster, running(server.url) as other:
        lease = await cluster.locks.acquire(KEY, ttl=60)
        holding.hold()
        with pytest.raises(LockUnavailable):
            await lease.extend(3)
        await lease.extend(60)
        await asyncio.sleep(1)  # now it is not renewed before a third of that

        holding.let_go()

        assert await other.locks.try_acquire(KEY, timeout=5) is None
        assert lease.valid_for() > 30
        lease.check()


@asynccontextmanager
async def late(server: PlainServer, holding: Holding) -> AsyncGenerator[tuple[Cluster, Cluster]]:
    """What the first cluster asks first in the body reaches the server after it, and is freed."""
    async with running(await holding.start()) as cluster, running(server.url) as other:
        async with cluster.locks.hold("another"):
            pass  # there is a connection now
        holding.hold()
        yield cluster, other
        await asyncio.sleep(1)  # it is not the first thing that is looked for
        assert await other.locks.inspect(KEY) is None

        holding.let_go()

        await eventually(lambda: other.locks.inspect(KEY))
        async with other.locks.hold(KEY, timeout=20):
            pass


@pytest.mark.asyncio
async def test_a_lock_that_is_granted_after_its_release_is_freed(
    server: PlainServer, holding: Holding
) -> None:
    async with late(server, holding) as (cluster, _), cluster.locks.hold(KEY, ttl=60, timeout=20):
        pass  # by a second request: the first is on its way


@pytest.mark.asyncio
async def test_a_lock_that_is_granted_after_its_loss_is_freed(
    server: PlainServer, holding: Holding
) -> None:
    async with late(server, holding) as (cluster, other):
        with pytest.raises(LockLost):
            async with cluster.locks.hold(KEY, ttl=60, timeout=20, max_hold=0.5):
                await asyncio.Event().wait()
        await eventually(lambda: other.locks.inspect(KEY), lambda holder: holder is None)


@pytest.mark.asyncio
async def test_a_request_that_outlives_its_connection_leaves_no_lock(
    server: PlainServer, holding: Holding
) -> None:
    async with late(server, holding) as (cluster, _):
        asking = asyncio.get_running_loop().create_task(cluster.locks.acquire(KEY, ttl=60))
        await holding.kept.wait()
        holding.cut()
        lease = await asking  # by a second request, on another connection
        await lease.release()


@pytest.mark.asyncio
async def test_a_release_that_arrives_late_frees_nothing_that_was_granted_since(
    server: PlainServer, holding: Holding
) -> None:
    async with (
        FaultProxy(await holding.start()) as proxy,
        running(proxy.url) as cluster,
        running(server.url) as other,
    ):
        async with cluster.locks.hold("another"):
            pass  # there is a connection now
        proxy.freeze("to_client")
        asking = asyncio.ensure_future(cluster.locks.acquire(KEY, max_hold=1, timeout=30))
        await eventually(lambda: other.locks.inspect(KEY))
        await asyncio.sleep(1)
        holding.hold()
        proxy.resume()  # it is granted too late, and its release is kept back
        await holding.kept.wait()

        lease = await asking
        holding.let_go()

        assert await other.locks.try_acquire(KEY, timeout=0.5) is None
        lease.check()


@pytest.mark.asyncio
@pytest.mark.parametrize("server", [REDIS], indirect=True)
async def test_who_hears_late_that_a_limit_lets_him_in_counts_from_then(
    server: PlainServer,
) -> None:
    async with (
        FaultProxy(server.url) as proxy,
        running(proxy.url) as cluster,
        running(server.url) as other,
    ):
        assert await cluster.locks.rate_limit("another", 1, 60).try_acquire()
        proxy.freeze("to_client")
        asking = asyncio.ensure_future(cluster.locks.rate_limit(KEY, 1, 3).acquire(timeout=30))
        await asyncio.sleep(2.5)
        assert not asking.done()
        proxy.resume()

        await asking
        await asyncio.sleep(1)
        assert not await other.locks.rate_limit(KEY, 1, 3).try_acquire()
