"""The link on a real broker, cut at every byte of what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from cluster_kit.names import new_id
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit_amqp.link import Channel, Incoming, Link, LinkDown, LinkError, Message
from cluster_kit_amqp.options import parse_url
from cluster_kit_amqp.plane.link import dial
from integration.amqp_bench import raw_channel

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(180)]

ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
HEADERS: dict[str, object] = {"ck-id": "a", "n": 1, "text": "häuser", "none": None, "yes": True}


async def dialled(url: str) -> Link:
    options = parse_url(url)
    return await dial(options, options.hosts[0], tls=None, name="cuts")


@asynccontextmanager
async def channel_of(url: str, *, confirms: bool = False) -> AsyncIterator[Channel]:
    link = await dialled(url)
    try:
        yield await link.open_channel(confirms=confirms)
    finally:
        await link.close()


@pytest.fixture
def message() -> Message:
    return Message(
        body=b"0123456789" * 3,
        headers=HEADERS,
        message_id=new_id(),
        content_type="application/json",
        app_id="shop",
        timestamp=1_600_000_000.0,
    )


@pytest_asyncio.fixture
async def queue(rabbitmq: str) -> str:
    """A queue, and an exchange of the same name that leads to it by the key "k"."""
    name = f"cuts-{new_id()[:8]}"
    async with raw_channel(rabbitmq) as channel:
        await channel.exchange_declare(name, exchange_type="direct", durable=True)
        await channel.queue_declare(name, durable=True, arguments=ARGUMENTS)
        await channel.queue_bind(name, name, "k")
    return name


async def taken(url: str, queue: str) -> list[str]:
    """Take all there is."""
    found: list[str] = []
    async with raw_channel(url) as channel:
        while (got := await channel.basic_get(queue)).delivery_tag is not None:
            assert got.body == b"0123456789" * 3
            headers = got.header.properties.headers
            assert {name: headers[name] for name in HEADERS} == HEADERS
            found.append(got.header.properties.message_id)
            await channel.basic_ack(got.delivery_tag)
    return found


async def test_a_publish_cut_at_every_byte_is_stored_whole_or_not_at_all(
    rabbitmq: str, fault_proxy: FaultProxy, queue: str, message: Message
) -> None:
    sent = confirmed = 0
    for count in range(1000):
        async with channel_of(fault_proxy.url, confirms=True) as channel:
            fault_proxy.close_after(count, "to_server")
            outcome = (
                await asyncio.gather(channel.publish(queue, "k", message), return_exceptions=True)
            )[0]
            if outcome is None:
                confirmed += 1
            else:
                assert isinstance(outcome, LinkDown)
                assert outcome.sent
                assert not channel.open
        fault_proxy.resume()
        sent += 1
        if confirmed:
            break

    stored = await taken(rabbitmq, queue)
    assert confirmed, "so many bytes a publish does not have"
    assert confirmed <= len(stored) <= 2  # the last byte may arrive and its confirm not
    assert set(stored) == {message.message_id}
    assert sent > 150


async def test_a_delivery_cut_at_every_byte_comes_whole_or_not_at_all(
    rabbitmq: str, fault_proxy: FaultProxy, queue: str, message: Message
) -> None:
    async with channel_of(rabbitmq, confirms=True) as channel:
        await channel.publish(queue, "k", message)
    whole: list[Incoming] = []
    for count in range(1000):
        async with channel_of(fault_proxy.url) as channel:
            ended = asyncio.Event()
            channel.on_closed(partial(set_when_called, ended))
            fault_proxy.close_after(count, "to_client")
            with suppress(LinkError):
                await consume(channel, queue, whole)
            await ended.wait()
        fault_proxy.resume()
        if whole:
            break

    assert count > 200
    assert len(whole) == 1
    assert whole[0].redelivered or count < 3
    assert whole[0].message.body == message.body
    assert {name: whole[0].message.headers[name] for name in HEADERS} == HEADERS
    assert await taken(rabbitmq, queue) == [message.message_id]


def set_when_called(event: asyncio.Event, _: str) -> None:
    event.set()


async def consume(channel: Channel, queue: str, whole: list[Incoming]) -> None:
    await channel.consume(
        queue,
        prefetch=1,
        on_message=lambda _, incoming: whole.append(incoming),
        on_cancelled=lambda _: None,
    )
