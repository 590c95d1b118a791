"""The broker stops what is published: on one channel, on a connection, or by reading no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from pamqp import commands, heartbeat

from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import Incoming, Link, Message
from cluster_kit_amqp.plane.link import PlaneLink
from cluster_kit_amqp.plane.room import MOST_BYTES
from tests.unit.amqp_server import Peer, linked

pytestmark = pytest.mark.asyncio


MESSAGES = 40  # of 1 MiB, more than may be under way


async def stop_by_flow(peer: Peer, *, stop: bool) -> None:
    peer.send(1, commands.Channel.Flow(active=not stop))
    answer = await peer.expect(commands.Channel.FlowOk)
    assert answer.active is not stop


async def stop_by_alarm(peer: Peer, *, stop: bool) -> None:
    told = commands.Connection.Blocked("memory") if stop else commands.Connection.Unblocked()
    peer.send(0, told)


class Stopping:
    """A server that stops the channel it delivers on, until told to let it go on."""

    def __init__(self, stop: Callable[..., Awaitable[None]]) -> None:
        self._stop = stop
        self.order: list[str] = []
        self.go_on = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.open_channel()
        tag = await peer.consumer()
        await self._stop(peer, stop=True)
        peer.deliver(1, 1, b"x", consumer=tag)
        await peer.expect(commands.Basic.Ack)
        self.order.append("acknowledged")
        assert not any(isinstance(told, commands.Basic.Publish) for told in peer.passed)
        await self.go_on.wait()
        await self._stop(peer, stop=False)
        await peer.expect(commands.Basic.Publish)
        self.order.append("published")
        peer.send(1, commands.Basic.Ack(1))


@pytest.mark.parametrize(
    ("stop", "reason"), [(stop_by_flow, "it has stopped channel 1"), (stop_by_alarm, "memory")]
)
async def test_a_stopped_channel_publishes_nothing_acks_all_the_same_and_goes_on_when_told(
    stop: Callable[..., Awaitable[None]], reason: str
) -> None:
    server = Stopping(stop)
    taken: list[Incoming] = []
    seen: list[str | None] = []
    async with linked(server) as link:
        link.on_change(lambda: seen.append(link.blocked))
        channel = await link.open_channel(confirms=True)
        await channel.consume(
            "q",
            prefetch=1,
            on_message=lambda _, incoming: taken.append(incoming),
            on_cancelled=lambda _: None,
        )
        await eventually(lambda: taken)
        publishing = asyncio.ensure_future(channel.publish("x", "k", Message(body=b"1")))
        await asyncio.sleep(0)
        channel.ack(1)
        await eventually(lambda: server.order)
        assert not publishing.done()
        server.go_on.set()
        await publishing

        assert server.order == ["acknowledged", "published"]
        assert seen == [reason, None]


async def test_a_channel_that_ends_while_it_is_stopped_stops_no_other() -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        peer.send(1, commands.Channel.Flow(active=False))
        await peer.expect(commands.Channel.FlowOk)
        await peer.expect(commands.Channel.Close)
        peer.send(1, commands.Channel.CloseOk())
        await peer.channel_opened()
        await peer.expect(commands.Basic.Publish)
        peer.send(1, commands.Basic.Ack(1))

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await eventually(lambda: link.blocked)
        await channel.close()
        assert link.blocked is None
        other = await link.open_channel(confirms=True)
        await other.publish("x", "k", Message(body=b"1"))


def waiting_to_be_written(link: Link) -> int:
    transport = cast("PlaneLink", link)._protocol._transport
    assert transport is not None
    return transport.get_write_buffer_size()


async def test_a_peer_that_reads_no_more_costs_bounded_memory() -> None:
    go_on = asyncio.Event()
    counted: list[Any] = []

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        while not go_on.is_set():  # alive, but it reads nothing
            peer.send(0, heartbeat.Heartbeat())
            await asyncio.sleep(0.05)
        for number in range(1, MESSAGES + 1):
            counted.append(await peer.expect(commands.Basic.Publish))
            peer.send(1, commands.Basic.Ack(number))

    body = bytes(1024 * 1024)
    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)

        async def publish() -> None:
            await channel.publish("x", "k", Message(body=body))

        async with asyncio.TaskGroup() as group:
            for _ in range(MESSAGES):
                group.create_task(publish())
            for _ in range(20):
                await asyncio.sleep(0.02)
                assert waiting_to_be_written(link) <= MOST_BYTES + 2 * len(body)
            assert link.lost is None
            go_on.set()

        assert len(counted) == MESSAGES
