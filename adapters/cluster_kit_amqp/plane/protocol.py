"""One connection: its socket, its channels, and what concerns all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from cluster_kit_amqp.link import ChannelDown
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.plane.carrier import Member
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.fields import U32
from cluster_kit_amqp.plane.frames import (
    GREETING,
    HEARTBEAT,
    METHOD,
    FrameReader,
    MalformedError,
)
from cluster_kit_amqp.plane.heartbeat import Heartbeat
from cluster_kit_amqp.plane.room import Refusals, Room

if TYPE_CHECKING:
    from cluster_kit_amqp.plane.methods import Tuning

log = logging.getLogger(__name__)

OnMethod = Callable[[int, bytes], None]
"""Called with index and arguments of a method of channel 0."""

_CLOSE_TIMEOUT = 1.0  # seconds the peer has to answer a close, or to take ours
_ALL_CHANNELS = 0
_CLOSED_BY_US = "closed by this side"
_WRITE_AHEAD = 512 * 1024  # bytes the socket need not have taken before publishing stops


class AmqpProtocol(asyncio.Protocol):
    """Speaks AMQP on a socket. Nothing in here waits, and nothing in here is a task.

    What is sent in one turn of the event loop is written together, at its end.

    Args:
        loop: the running one.
        largest_frame: bytes; until another limit is agreed on.
        on_method: takes the methods of channel 0 until `tuned`.

    Attributes:
        lost: why the connection is gone; None while it is up.
        blocked: why the broker takes no publishes; None when it does.
        closed_by: reply code and text with which the broker closed.
        on_change: called when `lost` or `blocked` changed.
        room: for what is published and not confirmed.
        frame_max: bytes of the largest frame that may be sent.
        heartbeat: keeps it alive; None where none was agreed on.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, largest_frame: int, on_method: OnMethod
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.frame_max: int = largest_frame
        self.lost: str | None = None
        self.blocked: str | None = None
        self.closed_by: tuple[int, str] | None = None
        self.on_change: Callable[[], None] | None = None
        self.room: Room = Room()
        self._on_method = on_method
        self._reader = FrameReader(self._frame, largest_frame)
        self._transport: asyncio.Transport | None = None
        self.heartbeat: Heartbeat | None = None
        self._channels: dict[int, PlaneChannel] = {}
        self._out: list[bytes] = []
        self._acking: set[Member] = set()
        self._turn_ends, self._channel_max = False, 0
        self._refusals = Refusals(self.room)
        self._closing = False
        self._closed = asyncio.Event()
        self._abort: asyncio.TimerHandle | None = None
        self._heard = self._ended = loop.time()

    # --- the socket --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server (4.2.2)."""
        # uvloop's is none by inheritance, only by what it can do.
        stream = cast("asyncio.Transport", transport)
        self._transport = stream
        stream.set_write_buffer_limits(high=_WRITE_AHEAD)
        stream.write(GREETING)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._heard = self.loop.time()
        if self.heartbeat is not None:
            self.heartbeat.heard()
        if self.lost is not None and not self._closing:
            return
        try:
            self._reader.feed(data)
        except MalformedError as exc:
            self.fail(str(exc))
        except Exception as exc:
            log.debug("a frame could not be taken", exc_info=exc)
            self.fail(f"the server sent what cannot be decoded: {exc!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        text = None if exc is None else str(exc) or type(exc).__name__
        self.fail(text or "the peer closed the connection")
        if self._abort is not None:
            self._abort.cancel()
        self._closed.set()

    def pause_writing(self) -> None:
        """The socket takes nothing more."""
        self.room.shut(self)

    def resume_writing(self) -> None:
        """The socket takes again."""
        self.room.reopen(self)

    @property
    def silence(self) -> float:
        """Seconds since something came, up to the loss."""
        return (self.loop.time() if self.lost is None else self._ended) - self._heard

    # --- sending -----------------------------------------------------------------------------

    def send(self, frames: bytes) -> None:
        """Send with the rest of this turn of the event loop."""
        self._out.append(frames)
        if not self._turn_ends:
            self._end_turn_soon()

    def send_all(self, pieces: list[bytes]) -> None:
        """Send a message; at once where no other is on its way, that this one could leave with."""
        self._out += pieces
        if not self._turn_ends:
            (self.flush if self.room.one else self._end_turn_soon)()

    def at_turn_end(self, channel: Member) -> None:
        """Send the acknowledgements of `channel` with the rest of this turn."""
        self._acking.add(channel)
        if not self._turn_ends:
            self._end_turn_soon()

    def _end_turn_soon(self) -> None:
        self._turn_ends = True
        self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is to be sent."""
        self._turn_ends = False
        if self._acking:
            self._out += [channel.take_acks() for channel in self._acking]
            self._acking.clear()
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        if self.lost is None and self._transport is not None and data:
            self._transport.write(data)
            if self.heartbeat is not None:
                self.heartbeat.spoke()

    # --- channels ----------------------------------------------------------------------------

    def tuned(self, tuning: Tuning) -> None:
        """The limits are agreed on: from now on there are channels and heartbeats."""
        self.frame_max = self._reader.largest = tuning.frame_max
        self._channel_max = tuning.channel_max
        if tuning.heartbeat:
            self.heartbeat = Heartbeat(tuning.heartbeat, self.send, self.fail)

    def opened(self) -> None:
        """The connection is open; methods of channel 0 are taken here from now on."""
        self._on_method = self._connection_method

    def new_channel(self) -> PlaneChannel:
        """Return a channel under a number nobody uses.

        Raises:
            ChannelDown: there are as many as may be.
        """
        number = 1
        while number in self._channels:
            number += 1
        if number > self._channel_max:
            reason = f"there are {self._channel_max} channels, and no more are allowed"
            raise ChannelDown(0, reason, sent=False)
        channel = self._channels[number] = PlaneChannel(number, self)
        return channel

    def forget(self, channel: Member) -> None:
        """The number of a channel may be used again."""
        self._channels.pop(channel.number, None)

    def flow(self, channel: Member, *, active: bool) -> None:
        """The broker takes messages on a channel, or none for now, and then we publish on none."""
        self._refuse(channel.number, None if active else f"it has stopped channel {channel.number}")

    def _refuse(self, number: int, reason: str | None) -> None:
        """Publish nothing for the broker's reason, or go on when that was the last."""
        if self._refusals.note(number, reason):
            self.blocked = self._refusals.first
            self._changed()

    def _frame(self, kind: int, number: int, data: bytes, start: int, stop: int) -> int:
        channel = self._channels.get(number)
        if channel is not None:
            return channel.frame(kind, data, start, stop)
        if self.lost is not None:
            if self._closing and kind == METHOD and not number:
                self._closing_method(U32.unpack_from(data, start)[0])
        elif number:
            raise MalformedError(f"a frame came for channel {number}, which is not open")
        elif kind == METHOD:
            self._on_method(U32.unpack_from(data, start)[0], data[start + 4 : stop])
        elif kind != HEARTBEAT:
            raise MalformedError("a message came on channel 0")
        return stop + 1

    # --- the connection ----------------------------------------------------------------------

    def _connection_method(self, index: int, arguments: bytes) -> None:
        match index:
            case methods.CONNECTION_CLOSE:
                self.closed_by_peer(arguments)
            case methods.CONNECTION_BLOCKED:
                self._refuse(_ALL_CHANNELS, methods.read_text(arguments) or "no reason given")
            case methods.CONNECTION_UNBLOCKED:
                self._refuse(_ALL_CHANNELS, None)
            case _:
                raise MalformedError(f"method {methods.name(index)} came on channel 0")

    def closed_by_peer(self, arguments: bytes) -> None:
        """Answer connection.close; nothing else may be sent any more (connection.close)."""
        code, text = methods.read_close(arguments)
        self.closed_by = code, text
        self._write(methods.method(0, methods.CONNECTION_CLOSE_OK))
        self.fail(f"{code} {text}", flush=True)

    def _closing_method(self, index: int) -> None:
        """While we close, only the answer counts; the peer may close too (connection.close)."""
        if index == methods.CONNECTION_CLOSE_OK:
            self._drop_socket()
        elif index == methods.CONNECTION_CLOSE:
            self._write(methods.method(0, methods.CONNECTION_CLOSE_OK))

    def fail(self, reason: str, *, flush: bool = False) -> None:
        """The connection is of no use any more. The first reason stays.

        Args:
            reason: for people.
            flush: whether what was written should still leave, for a moment.
        """
        if self.lost is not None and not self._closing:
            return
        self._drop_socket(flush=flush)
        self._end(reason)

    def _end(self, reason: str) -> None:
        """Send nothing more, and tell everybody."""
        if self.lost is not None:
            return
        self.lost = reason
        self._ended = self.loop.time()
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self._out.clear()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.link_lost(reason)
        self.room.give_up()
        self._changed()

    def _write(self, frames: bytes) -> None:
        """Write at once, before what waits for the end of this turn."""
        if self._transport is not None:
            self._transport.write(frames)

    def _drop_socket(self, *, flush: bool = False) -> None:
        transport = self._transport
        if transport is None:
            self._closed.set()
        elif flush:
            transport.close()
            self._abort = self.loop.call_later(_CLOSE_TIMEOUT, transport.abort)
        else:
            transport.abort()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    async def close(self) -> None:
        """Close in good order, or drop the socket of a peer that takes too long to answer.

        Behind connection.close nothing may be sent, and what comes does not count any more
        (connection.close): the link is lost from the first moment.
        """
        if self.lost is None:
            self.flush()
            self._write(methods.close(0, methods.CONNECTION_CLOSE, 200, _CLOSED_BY_US))
            self._closing = True
            self._end(_CLOSED_BY_US)
        try:
            await self._wait_closed()
        finally:
            self._drop_socket()
        await self._wait_closed()

    async def _wait_closed(self) -> None:
        """Wait a moment for the end of the socket."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._closed.wait()
