"""What a channel needs of the connection under it, and that of its channels."""

from __future__ import annotations

import asyncio
from typing import Protocol

from cluster_kit_amqp.plane.room import Room


class Member(Protocol):
    """A channel, as far as its connection is told of it."""

    number: int

    def take_acks(self) -> bytes:
        """Return the frames of what was acknowledged and not sent."""
        ...


class Carrier(Protocol):
    """A connection, as far as a channel needs it.

    Attributes:
        loop: the running one.
        room: for what is published and not confirmed.
        frame_max: bytes of the largest frame that may be sent.
        lost: why the connection is gone; None while it is up.
    """

    loop: asyncio.AbstractEventLoop
    room: Room
    frame_max: int
    lost: str | None

    def send(self, frames: bytes) -> None:
        """Send with the rest of this turn of the event loop."""
        ...

    def send_all(self, pieces: list[bytes]) -> None:
        """Send a message that has entered the `room`; at once where it is alone there."""
        ...

    def at_turn_end(self, channel: Member) -> None:
        """Send what `take_acks` returns then with the rest of this turn."""
        ...

    def flow(self, channel: Member, *, active: bool) -> None:
        """The broker takes messages on a channel, or none for now."""
        ...

    def forget(self, channel: Member) -> None:
        """The number of a channel may be used again."""
        ...
