from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from cluster_kit.errors import ConnectError, ConnectionLost
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Taker, bench

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def with_netloc(url: str, **parts: str) -> str:
    given = urlsplit(url)
    user = parts.get("user", given.username or "guest")
    password = parts.get("password", given.password or "guest")
    hosts = parts.get("hosts", f"{given.hostname}:{given.port}")
    path = parts.get("path", given.path)
    return urlunsplit(given._replace(netloc=f"{user}:{password}@{hosts}", path=path))


@asynccontextmanager
async def other_server(serve: Serve) -> AsyncIterator[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(8)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    await reader.read()
    writer.close()


async def refused(url: str, timeout: float = 5.0) -> ConnectError:
    async with bench(url, connect=False, connect_timeout=timeout) as made:
        began = time.monotonic()
        with pytest.raises(ConnectError) as caught:
            await made.adapter.connect()
        assert time.monotonic() - began < timeout + 2
        assert made.adapter.health().status == "down"
    return caught.value


async def test_a_closed_port_is_named(rabbitmq: str) -> None:
    error = await refused(with_netloc(rabbitmq, hosts="127.0.0.1:1", password="s3cret"))

    assert "127.0.0.1:1" in str(error)
    assert "refused" in str(error) or "Connect call failed" in str(error)
    assert "s3cret" not in str(error)
    assert error.retryable


async def test_a_wrong_password_is_no_case_for_trying_again(rabbitmq: str) -> None:
    error = await refused(with_netloc(rabbitmq, password="wr0ng"))

    assert "ACCESS_REFUSED" in str(error)
    assert "wr0ng" not in str(error)
    assert not error.retryable


async def test_a_missing_virtual_host_is_named(rabbitmq: str) -> None:
    error = await refused(with_netloc(rabbitmq, path="/no-such-host"))

    assert "no-such-host" in str(error)
    assert "not found" in str(error)
    assert not error.retryable


async def test_a_server_that_says_nothing_costs_the_timeout(rabbitmq: str) -> None:
    async with other_server(silent) as address:
        error = await refused(with_netloc(rabbitmq, hosts=address), timeout=0.5)

    assert "no answer within 0.5 s" in str(error)
    assert error.retryable


async def test_a_server_of_another_kind_is_recognised(rabbitmq: str) -> None:
    async with other_server(web) as address:
        error = await refused(with_netloc(rabbitmq, hosts=address))

    assert "no AMQP server" in str(error)


async def test_each_host_is_tried_and_each_reason_told(rabbitmq: str) -> None:
    async with other_server(silent) as address:
        hosts = f"127.0.0.1:1,{address}"
        error = await refused(with_netloc(rabbitmq, hosts=hosts) + "?shuffle=false", timeout=1.0)

    assert "127.0.0.1:1: " in str(error)
    assert f"{address}: no answer" in str(error)


async def test_one_good_host_of_several_is_enough(rabbitmq: str) -> None:
    given = urlsplit(rabbitmq)
    async with other_server(silent) as address:
        hosts = f"127.0.0.1:1,{address},{given.hostname}:{given.port}"
        async with bench(with_netloc(rabbitmq, hosts=hosts), connect_timeout=3.0) as made:
            await made.publish(made.task())

            await eventually(lambda: made.adapter.health().status == "ok")


async def test_it_moves_on_to_another_host_when_one_goes_away(
    rabbitmq: str, fault_proxy: FaultProxy
) -> None:
    given = urlsplit(rabbitmq)
    hosts = f"127.0.0.1:{fault_proxy.port},{given.hostname}:{given.port}"
    async with bench(with_netloc(rabbitmq, hosts=hosts) + "?shuffle=false") as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        await eventually(lambda: fault_proxy.connections == 2)
        fault_proxy.refuse()
        await made.publish(made.task())

        await eventually(lambda: len(taker.received) == 1)
        await eventually(lambda: made.adapter.health().status == "ok")


async def test_connecting_twice_and_closing_twice_is_no_error(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        await made.adapter.connect()
        assert len(made.heard("connection.up")) == 2
        await made.adapter.close()
        await made.adapter.close()

        assert made.adapter.health().status == "down"
        with pytest.raises(ConnectionLost):
            await made.adapter.publish(made.task(), timeout=5.0)
        await made.adapter.connect()
        await made.publish(made.task())


async def test_the_broker_shows_who_is_connected(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        assert "RabbitMQ" in made.adapter.health().detail
        purposes = {fields["purpose"] for fields in made.heard("connection.up")}

        assert purposes == {"publish", "consume"}
