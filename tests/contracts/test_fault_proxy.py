from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """In front of a server that returns what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(f"amqp://user:p%40ss@127.0.0.1:{port}/vhost?heartbeat=5") as proxy:
        yield proxy
    server.close()
    await asyncio.sleep(0)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await self.reader.readexactly(len(text))

    async def ended(self) -> bool:
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True
        finally:
            self.writer.close()


async def connect(proxy: FaultProxy) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    assert await client.ask(b"hello") == b"hello"
    return client


async def test_the_url_differs_in_host_and_port_only(proxy: FaultProxy) -> None:
    assert proxy.url == f"amqp://user:p%40ss@127.0.0.1:{proxy.port}/vhost?heartbeat=5"


async def test_cut_ends_what_is_open_and_lets_new_ones_in(proxy: FaultProxy) -> None:
    clients = [await connect(proxy) for _ in range(3)]
    assert proxy.connections == 3

    assert proxy.cut() == 3

    assert [await client.ended() for client in clients] == [True] * 3
    client = await connect(proxy)
    client.writer.close()


async def test_one_connection_can_be_cut_and_the_others_stay(proxy: FaultProxy) -> None:
    clients = [await connect(proxy) for _ in range(3)]
    chance = random.Random(7)

    assert proxy.cut(one_of=chance) == 1

    await eventually(lambda: proxy.connections == 2)
    proxy.cut()
    assert [await client.ended() for client in clients] == [True] * 3
    await eventually(lambda: proxy.connections == 0)
    assert proxy.cut(one_of=chance) == 0


async def test_refuse_lets_nobody_in_until_resume(proxy: FaultProxy) -> None:
    client = await connect(proxy)
    proxy.refuse()
    assert await client.ended()
    refused = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    assert await refused.ended()

    proxy.resume()
    client = await connect(proxy)
    client.writer.close()


async def test_freeze_holds_everything_and_resume_passes_it_on(proxy: FaultProxy) -> None:
    client = await connect(proxy)
    proxy.freeze()
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(client.ask(b"anybody there?"))
        await asyncio.sleep(0.1)  # an answer would have come long since
        assert not answer.done()
        proxy.resume()
    assert answer.result() == b"anybody there?"
    client.writer.close()


async def test_a_frozen_connection_can_be_cut(proxy: FaultProxy) -> None:
    client = await connect(proxy)
    proxy.freeze("to_client")
    client.writer.write(b"lost")
    await asyncio.sleep(0.05)
    proxy.cut()
    assert await client.ended()
    await eventually(lambda: proxy.connections == 0)


async def test_close_after_lets_so_many_bytes_pass(proxy: FaultProxy) -> None:
    client = await connect(proxy)
    proxy.close_after(3, "to_client")
    client.writer.write(b"abcdef")
    assert await client.reader.read(100) == b"abc"
    assert await client.ended()
    client = await connect(proxy)
    assert await client.ask(b"abcdef") == b"abcdef"  # once is once
    proxy.close_after(0, "to_server")
    client.writer.write(b"x")
    assert await client.ended()
    await eventually(lambda: proxy.connections == 0)


async def test_delay_slows_every_answer(proxy: FaultProxy) -> None:
    client = await connect(proxy)
    loop = asyncio.get_running_loop()
    proxy.delay(0.1)
    begun = loop.time()
    assert await client.ask(b"slow") == b"slow"
    assert loop.time() - begun >= 0.2  # there and back
    client.writer.close()


async def test_a_server_that_is_away_ends_the_connection() -> None:
    async with FaultProxy("amqp://127.0.0.1:1/") as proxy:
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await client.ended()


async def test_a_url_without_a_port_is_refused() -> None:
    with pytest.raises(ValueError, match="port"):
        FaultProxy("amqp://localhost/")
    with pytest.raises(RuntimeError, match="not started"):
        _ = FaultProxy("amqp://localhost:1/").url


async def test_abandoned_connections_live_on_at_the_server_alone() -> None:
    ended = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        with suppress(OSError):
            await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(f"amqp://127.0.0.1:{port}") as proxy:
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await client.reader.readexactly(5) == b"hello"
        assert proxy.abandon() == 1
        assert await client.ended()
        await asyncio.sleep(0.1)
        assert not ended.is_set()
        proxy.resume()
        await asyncio.wait_for(ended.wait(), 5)
    server.close()
