"""Servers that are not what the URL says."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from socket import SO_LINGER, SOL_SOCKET

import pytest

from cluster_kit.errors import ConnectError
from cluster_kit.testing.factory import ClusterFactory

NO_TLS = "does this port speak TLS?"


@asynccontextmanager
async def answering(
    answer: bytes, *, hang_up: bool = False, reset: bool = False
) -> AsyncIterator[str]:
    """Host and port of a server that says the same to everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(10_000):
                writer.write(answer)
                if reset:  # as whoever closes without having read all
                    await asyncio.sleep(0.1)
                    connection = writer.get_extra_info("socket")
                    connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                if hang_up or reset:
                    return

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url", "answer", "hang_up", "said"),
    [
        ("redis://{}", b"ERROR\r\n", False, "what answers there is no Redis: "),
        ("redis://:pw@{}", b"AMQP\x00\x00\x09\x01", True, "what answers there is no Redis: "),
        ("redis+sentinel://{}/main", b"ERROR\r\n", False, "what answers there is no Sentinel: "),
        (
            "redis+sentinel://{}/main",
            b"-ERR unknown command 'SENTINEL', with args beginning with: 'MASTERS'\r\n",
            False,
            "what answers there is no Sentinel: unknown command 'SENTINEL'",
        ),
        ("memcached://{}", b"-ERR unknown command 'version'\r\n", False, 'is no memcached: "-ERR'),
        ("memcached://{}", b"AMQP\x00\x00\x09\x01", True, r"is no memcached: 'AMQP\x00"),
        ("rediss://{}", b"ERROR\r\n", False, NO_TLS),
        (
            "redis://s3cret@{}",
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            False,
            "a password alone has a colon: redis://:***@host",
        ),
    ],
)
async def test_waiting_does_not_help(
    url: str,
    answer: bytes,
    hang_up: bool,
    said: str,
    cluster_factory: ClusterFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with answering(answer, hang_up=hang_up) as place:
        [cluster] = await cluster_factory(start=False, cache={"url": url.format(place)})
        with pytest.raises(ConnectError) as caught:
            await cluster.start()

    assert said in str(caught.value)
    assert not caught.value.retryable
    assert "s3cret" not in f"{caught.value} {caplog.text} {cluster.settings!r}"


@pytest.mark.asyncio
async def test_who_says_nothing_may_wait_for_plain_text(cluster_factory: ClusterFactory) -> None:
    async with answering(b"") as place:
        cache = {"url": f"rediss://{place}"}
        [cluster] = await cluster_factory(start=False, connect_timeout=0.1, cache=cache)  # type: ignore[arg-type]
        with pytest.raises(ConnectError, match="TLS") as caught:
            await cluster.start()

    assert NO_TLS in str(caught.value)
    assert caught.value.retryable


@pytest.mark.asyncio
async def test_a_memcached_that_takes_no_more_connections_is_one(
    cluster_factory: ClusterFactory,
) -> None:
    async with answering(b"ERROR Too many open connections\r\n", hang_up=True) as place:
        [cluster] = await cluster_factory(start=False, cache={"url": f"memcached://{place}"})
        with pytest.raises(ConnectError, match="Too many open connections") as caught:
            await cluster.start()

    assert caught.value.retryable


@pytest.mark.asyncio
async def test_a_rabbitmq_is_no_memcached(cluster_factory: ClusterFactory) -> None:
    async with answering(b"AMQP\x00\x00\x09\x01", reset=True) as place:
        [cluster] = await cluster_factory(start=False, cache={"url": f"memcached://{place}"})
        with pytest.raises(ConnectError, match="is no memcached: 'AMQP") as caught:
            await cluster.start()

    assert not caught.value.retryable
