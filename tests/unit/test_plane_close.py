"""The end of a link, by this side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from pamqp import commands

from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import Channel, Incoming, Link, LinkDown, LinkError, Message
from tests.unit.amqp_server import Peer, dialled, linked, served

pytestmark = pytest.mark.asyncio


async def consume(channel: Channel, taken: list[Incoming]) -> None:
    await channel.consume(
        "q",
        prefetch=9,
        on_message=lambda _, incoming: taken.append(incoming),
        on_cancelled=lambda _: None,
    )


async def everything_at_once(link: Link, channel: Channel) -> None:
    """Do whatever can be done on a link, as often as there is a chance to."""
    while True:
        with contextlib.suppress(LinkError):
            channel.requeue(2)
        with contextlib.suppress(LinkError):
            channel.send("x", "k", Message(body=b"late")).cancel()
        with contextlib.suppress(LinkError):
            await link.open_channel()
        with contextlib.suppress(LinkError):
            await channel.check_queue("q")
        await asyncio.sleep(0)


class ClosedUpon:
    """A server that closes too, delivers on, and writes down what comes behind the close."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.acked: list[int] = []
        self.after: list[Any] = []
        self.ended = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.open(heartbeat=1)  # half of which is over before the link gives up waiting
        await peer.channel_opened()
        tag = await peer.consumer()
        for number in (1, 2):
            peer.deliver(1, number, b"x", consumer=tag)
        self.acked.append((await peer.expect(commands.Basic.Ack)).delivery_tag)
        await peer.expect(commands.Connection.Close)
        peer.deliver(1, 3, b"late", consumer=tag)
        peer.send(0, commands.Connection.Close(320, "too", 0, 0))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.after.append((await peer.next())[1])
            if self._answer is not None:
                peer.send(0, self._answer)
            while True:
                self.after.append((await peer.next())[1])
        self.ended.set()


@pytest.mark.parametrize("answer", [commands.Connection.CloseOk(), None])
async def test_behind_the_close_nothing_is_sent_but_the_answer_to_one(answer: Any) -> None:
    server = ClosedUpon(answer)
    taken: list[Incoming] = []
    async with served(server) as url:
        link = await dialled(url)
        channel = await link.open_channel(confirms=True)
        await consume(channel, taken)
        await eventually(lambda: len(taken) == 2)
        publishing = asyncio.ensure_future(channel.publish("x", "k", Message(body=b"1")))
        await asyncio.sleep(0)
        channel.ack(1)  # it leaves before the close, whoever closes in the same breath
        closing = asyncio.ensure_future(link.close())
        busy = asyncio.ensure_future(everything_at_once(link, channel))
        await closing
        busy.cancel()
        with pytest.raises(LinkDown, match="closed by this side"):
            await publishing
        await server.ended.wait()

    assert [type(frame) for frame in server.after] == [commands.Connection.CloseOk]
    assert server.acked == [1]
    assert len(taken) == 2


async def test_a_frozen_peer_is_left_soon_however_much_is_unwritten() -> None:
    frozen = asyncio.Event()

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await frozen.wait()  # and reads nothing

    async with served(server) as url:
        link = await dialled(url)
        channel = await link.open_channel(confirms=True)
        publishing = [
            asyncio.ensure_future(channel.publish("x", "k", Message(body=bytes(1 << 20))))
            for _ in range(20)
        ]
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        await link.close()
        assert asyncio.get_running_loop().time() - began < 2.0
        await asyncio.wait(publishing)
        assert {type(publish.exception()) for publish in publishing} == {LinkDown}
        frozen.set()


async def test_one_who_is_cancelled_while_it_closes_leaves_no_socket() -> None:
    gone = asyncio.Event()

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await peer.expect(commands.Connection.Close)
        with contextlib.suppress(ConnectionError):
            await peer.until_gone()
        gone.set()

    async with served(server) as url:
        link = await dialled(url)
        await link.open_channel(confirms=True)
        closing = asyncio.ensure_future(link.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        await gone.wait()


async def test_callbacks_that_fail_keep_nobody_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        tag = await peer.consumer()
        peer.send(1, commands.Basic.Cancel(tag))
        await peer.channel_opened(2)
        peer.send(1, commands.Channel.Close(406, "no", 0, 0))
        await peer.expect(commands.Channel.CloseOk)

    heard: list[str] = []

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    with caplog.at_level(logging.ERROR):
        async with linked(server) as link:
            link.on_change(fail)
            link.on_change(lambda: heard.append("change"))
            channel = await link.open_channel(confirms=True)
            await channel.consume("q", prefetch=1, on_message=fail, on_cancelled=fail)
            channel.on_closed(fail)
            channel.on_closed(heard.append)
            other = await link.open_channel(confirms=True)
            other.on_closed(fail)
            other.on_closed(heard.append)
            await eventually(lambda: not channel.open)
            assert other.open
            assert link.lost is None
            channel.on_closed(fail)  # late, and told all the same
        await asyncio.sleep(0)

    assert heard == ["no", "closed by this side", "change"]
    assert len(caplog.records) == 5
    assert {record.getMessage() for record in caplog.records} == {"a callback of a link failed"}
