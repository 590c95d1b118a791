from __future__ import annotations

import asyncio

import pytest
from pamqp import commands

from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import ChannelDown, LinkDown, Message, QueueCounts
from cluster_kit_amqp.plane.carrier import Member
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.methods import Tuning
from cluster_kit_amqp.plane.protocol import AmqpProtocol
from cluster_kit_amqp.plane.room import Room
from tests.unit.amqp_server import Peer, linked


class FakeCarrier:
    """A connection that keeps what is sent on it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.room = Room()
        self.frame_max = 4096
        self.lost: str | None = None
        self.sent: list[bytes] = []

    def send(self, frames: bytes) -> None:
        self.sent.append(frames)

    def send_all(self, pieces: list[bytes]) -> None:
        self.sent += pieces

    def at_turn_end(self, channel: Member) -> None:
        self.sent.append(channel.take_acks())

    def flow(self, channel: Member, *, active: bool) -> None:
        del channel, active

    def forget(self, channel: Member) -> None:
        del channel


@pytest.mark.asyncio
async def test_a_channel_that_is_lost_while_its_publishes_wait_for_room_lets_others_in() -> None:
    carrier = FakeCarrier()
    lost, other = PlaneChannel(1, carrier), PlaneChannel(2, carrier)
    carrier.room.shut(carrier)
    waiting = [
        asyncio.ensure_future(channel.publish("", "q", Message(body=b"x")))
        for channel in (lost, lost, other)
    ]
    await asyncio.sleep(0)
    lost.end("closed", lambda: ChannelDown(0, "closed"))
    carrier.room.reopen(carrier)

    done, _ = await asyncio.wait(waiting[:2], timeout=5)
    assert [type(task.exception()) for task in done] == [ChannelDown] * 2
    await eventually(lambda: carrier.sent)
    waiting[2].cancel()


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low


@pytest.mark.asyncio
async def test_a_message_leaves_at_once_when_it_is_the_only_one_and_else_with_its_turn() -> None:
    protocol = AmqpProtocol(asyncio.get_running_loop(), 4096, lambda _index, _arguments: None)
    transport = FakeTransport()
    protocol.connection_made(transport)
    protocol.tuned(Tuning(channel_max=10, frame_max=4096, heartbeat=0))
    channel = protocol.new_channel()
    transport.written.clear()

    first = channel.publish("", "first", Message(body=b"1"))
    assert [b"first" in data for data in transport.written] == [True]
    others = [channel.publish("", f"other-{n}", Message(body=b"2")) for n in range(3)]
    assert len(transport.written) == 1
    await asyncio.sleep(0)
    assert [data.count(b"other-") for data in transport.written] == [0, 3]

    channel.end("closed", lambda: ChannelDown(0, "closed"))
    for publish in (first, *others):
        with pytest.raises(ChannelDown):
            await publish


@pytest.mark.asyncio
async def test_a_channel_for_a_context_is_not_waited_for_before_something_is_asked_on_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.expect(commands.Channel.Open)
        await peer.expect(commands.Queue.Declare)
        peer.send(1, commands.Channel.OpenOk(), commands.Queue.DeclareOk("q", 2, 1))
        await peer.expect(commands.Channel.Close)
        peer.send(1, commands.Channel.CloseOk())

    async with linked(script) as link, link.channel() as channel:
        assert await channel.check_queue("q") == QueueCounts(ready=2, consumers=1)


@pytest.mark.asyncio
async def test_a_channel_for_a_context_that_cannot_be_opened_fails_what_is_asked_on_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.expect(commands.Channel.Open)
        peer.send(0, commands.Connection.Close(530, "no more channels", 20, 10))

    async with linked(script) as link:
        with pytest.raises(LinkDown, match="no more channels"):
            async with link.channel() as channel:
                await channel.check_queue("q")
