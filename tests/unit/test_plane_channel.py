from __future__ import annotations

import asyncio

import pytest

from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import ChannelDown, Message
from cluster_kit_amqp.plane.carrier import Member
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.room import Room


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
