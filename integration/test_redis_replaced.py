"""A Redis behind one address, such as a load balancer's, whose primary becomes another server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.servers import REDIS, PlainServer
from integration.locks_bench import own_server
from integration.test_locks_contract import say


@pytest.fixture
def pair() -> Iterator[tuple[PlainServer, PlainServer]]:
    """The primary that was, and the one that is next."""
    with own_server(REDIS, to="demote") as server, own_server(REDIS, to="promote") as other:
        yield server, other


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def address(target: Callable[[], str]) -> AsyncGenerator[str]:
    """Lead new connections to the target of that moment, and leave those there are alone."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(target())
        back, forth = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pump(reader, forth), pump(back, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("serves_stale", [b"yes", b"no"], ids=["READONLY", "MASTERDOWN"])
async def test_a_primary_that_was_replaced_is_left(
    pair: tuple[PlainServer, PlainServer], serves_stale: bytes, cluster_factory: ClusterFactory
) -> None:
    old, new = pair
    primary = old
    async with address(lambda: primary.url) as url:
        [cluster] = await cluster_factory(cache={"url": url}, locks={"url": url})
        cache = await cluster.caches.create_cache("rows", l1_size=0)
        await asyncio.gather(*(cache.set(f"k{number}", 1) for number in range(5)))
        async with cluster.locks.hold("schema"):
            pass

        primary = new
        say(old.url, b"CONFIG SET replica-serve-stale-data " + serves_stale)
        say(old.url, b"REPLICAOF 127.0.0.1 1")

        await asyncio.gather(*(cache.set(f"k{number}", 2) for number in range(5)))
        assert await cache.mget(*(f"k{number}" for number in range(5))) == [2] * 5
        assert await cache.incr("hits") == 1
        async with cluster.locks.hold("schema", timeout=0) as lease:
            await lease.extend(30)
        assert cluster.health()["status"] == "ok"
        assert cache.stats().unavailable == 0
        await cluster.stop()
