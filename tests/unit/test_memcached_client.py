"""What keeps the answers of memcached apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from cluster_kit.testing.waiting import eventually
from cluster_kit_aiocache.memcached_client import MOST_KEY_BYTES, MemcachedClient, key_of
from cluster_kit_aiocache.memcached_connections import Connections


@pytest.mark.parametrize("name", ["app.c4.rows.user-1", "ж" * 125, "a" * MOST_KEY_BYTES])
def test_a_name_that_can_be_a_key_is_one(name: str) -> None:
    assert key_of(name) == name.encode()


@pytest.mark.parametrize("bad", [" ", "\r\nmn\r\n", "\x00", "\x7f", "\t", "a" * MOST_KEY_BYTES])
def test_a_name_that_would_end_a_key_is_hashed(bad: str) -> None:
    keys = {key_of(f"a{bad}{number}") for number in range(3)}

    assert len(keys) == 3
    for key in keys:
        assert key.startswith(b"ck.long.")
        assert len(key) <= MOST_KEY_BYTES
        assert key[8:].isalnum()


@asynccontextmanager
async def server(surplus: bytes) -> AsyncIterator[tuple[MemcachedClient, list[int]]]:
    """A server that answers the first request on its first connection with more than asked."""
    connections: list[int] = []
    ended: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, more = len(connections), b"" if connections else surplus
        connections.append(0)
        with closing(writer):
            while await reader.readline():
                connections[number] += 1
                writer.write(b"VERSION %d\r\n" % number + more)
                more = b""
        ended.append(number)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = Connections(*listening.sockets[0].getsockname()[:2])
    yield MemcachedClient(made), connections
    await made.close()
    await eventually(lambda: len(ended) == len(connections))
    listening.close()


@pytest.mark.asyncio
async def test_a_connection_with_an_answer_nobody_asked_for_is_used_no_more() -> None:
    async with server(b"VERSION of nobody\r\n") as (client, connections):
        assert [await client.version() for _ in range(3)] == ["0", "1", "1"]
        assert connections == [1, 2]


@pytest.mark.asyncio
async def test_a_connection_without_one_is_used_again() -> None:
    async with server(b"") as (client, connections):
        assert [await client.version() for _ in range(3)] == ["0", "0", "0"]
        assert connections == [3]
