"""A channel of the seam."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from cluster_kit_amqp.link import (
    NO_ARGUMENTS,
    ChannelDown,
    Incoming,
    LinkDown,
    LinkError,
    Message,
    Unencodable,
)
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.plane.calls import Calls, tell
from cluster_kit_amqp.plane.confirms import Confirms, Pending
from cluster_kit_amqp.plane.contents import Content
from cluster_kit_amqp.plane.deliveries import Consumer, Deliveries
from cluster_kit_amqp.plane.fields import U32
from cluster_kit_amqp.plane.frames import BODY, END, HEAD, HEADER, METHOD, OVERHEAD, MalformedError
from cluster_kit_amqp.plane.properties import encode_header
from cluster_kit_amqp.plane.queues import QueueCalls, encoded
from cluster_kit_amqp.plane.settlements import not_ours

if TYPE_CHECKING:
    from cluster_kit_amqp.plane.carrier import Carrier

_CLOSE_TIMEOUT = 1.0  # seconds
_CLOSED_BY_US = "closed by this side"

_mandatory_frame = lru_cache(maxsize=1024)(partial(methods.publish, mandatory=True))
_plain_frame = lru_cache(maxsize=1024)(partial(methods.publish, mandatory=False))


class PlaneChannel(QueueCalls):
    """Implements `cluster_kit_amqp.link.Channel`.

    Args:
        number: of the channel.
        carrier: what carries its frames.

    Attributes:
        open: whether it can be used.
    """

    def __init__(self, number: int, carrier: Carrier) -> None:
        super().__init__(number)
        self._carrier = carrier
        self.open: bool = True
        self._down = ""
        self._closing, self._prefetch = False, 0
        self._gone = asyncio.Event()
        self._on_closed: list[Callable[[str], None]] = []
        self._calls = Calls()
        self._content = Content()
        self._confirms = Confirms(carrier.room.leave)
        self._deliveries = Deliveries(number, self._content)

    # --- state -------------------------------------------------------------------------------

    def on_closed(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` when the channel has ended."""
        if self.open:
            self._on_closed.append(callback)
        else:
            asyncio.get_running_loop().call_soon(lambda: tell(callback, self._down))

    def _unusable(self) -> LinkError:
        """Return the error for a call on a channel that is not open any more."""
        if self._carrier.lost is not None:
            return LinkDown(self._carrier.lost, sent=False)
        return ChannelDown(0, "the channel is closed", sent=False)

    def end(self, reason: str, make_error: Callable[[], LinkError]) -> None:
        """It is of no use any more; whoever waits for an answer gets an error. Idempotent."""
        if not self.open:
            return
        self.open, self._down = False, reason
        self._deliveries.end()
        self._calls.fail_all(make_error)
        self._confirms.fail_all(make_error)
        self._carrier.flow(self, active=True)
        callbacks, self._on_closed = self._on_closed, []
        for callback in callbacks:
            tell(callback, reason)

    def link_lost(self, reason: str) -> None:
        """The connection is gone, and this channel with it."""
        self.end(reason, lambda: LinkDown(reason))
        self._gone.set()

    # --- calls -------------------------------------------------------------------------------

    def ask(self, request: bytes, answer: int) -> asyncio.Future[bytes]:
        """Send a method; return what will hold its answer, behind those to earlier ones."""
        if not self.open:
            raise self._unusable()
        self._carrier.send(request)
        return self._calls.expect(answer)

    async def call(self, request: bytes, answer: int) -> bytes:
        """Send a method and wait for its answer; a caller that is cancelled ends the channel."""
        future = self.ask(request, answer)
        try:
            return await future
        except asyncio.CancelledError:
            self._begin_close("a call on it was cancelled")
            raise

    async def consume(
        self,
        queue: str,
        *,
        prefetch: int,
        on_message: Callable[[str, Incoming], None],
        on_cancelled: Callable[[str], None],
        arguments: Mapping[str, object] = NO_ARGUMENTS,
        routed: bool = False,
    ) -> str:
        """Start a consumer."""
        # Never used before: RabbitMQ 4.3 ends a connection that takes a cancelled one's again.
        tag = f"ck-{uuid.uuid4().hex}"
        request = encoded(methods.consume, self.number, queue, tag, arguments)
        if prefetch != self._prefetch:
            self.ask(methods.qos(self.number, prefetch), methods.BASIC_QOS_OK)
            self._prefetch = prefetch
        self._deliveries.add(Consumer(tag, on_message, on_cancelled, routed))
        await self.call(request, methods.BASIC_CONSUME_OK)
        return tag

    async def cancel(self, tag: str) -> None:
        """End a consumer."""
        await self.call(methods.cancel(self.number, tag), methods.BASIC_CANCEL_OK)
        self._deliveries.remove(tag.encode())

    async def cancel_returning(self, consumer: str, tag: int) -> None:
        """End a consumer and return a delivery of it behind that."""
        if (returned := self._deliveries.settlements.reject(tag)) is None:
            raise not_ours(tag)
        await self.call(methods.cancel(self.number, consumer) + returned, methods.BASIC_CANCEL_OK)
        self._deliveries.remove(consumer.encode())

    async def close(self) -> None:
        """Close the channel; what is unsettled returns to its queue."""
        if not self.open:
            return
        self._begin_close(_CLOSED_BY_US)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._gone.wait()

    def _begin_close(self, reason: str) -> None:
        """Send channel.close; nothing but its answer counts from now on (channel.close)."""
        if not self.open:
            return
        acks = self._deliveries.settlements.take()
        self._carrier.send(acks + methods.close(self.number, methods.CHANNEL_CLOSE, 200, reason))
        self._closing = True
        self.end(reason, lambda: ChannelDown(0, reason))

    # --- publishing --------------------------------------------------------------------------

    def publish(self, exchange: str, key: str, message: Message) -> Awaitable[None]:
        """Publish; what is returned waits for the broker's answer."""
        pieces, pending = self._encode(_mandatory_frame, exchange, key, message)
        if not self._carrier.room.enter_if_free(pending.size):
            return self._put_later(pieces, pending)
        self._confirms.add(pending)
        self._carrier.send_all(pieces)
        return pending.future

    def send(self, exchange: str, key: str, message: Message) -> asyncio.Future[None]:
        """Publish without waiting, for room or for the answer."""
        pieces, pending = self._encode(_plain_frame, exchange, key, message)
        self._carrier.room.enter(pending.size)
        self._confirms.add(pending)
        self._carrier.send_all(pieces)
        return pending.future

    def _encode(
        self, frame: Callable[[int, str, str], bytes], exchange: str, key: str, message: Message
    ) -> tuple[list[bytes], Pending]:
        """Return the frames of a message, and what waits for its answer."""
        if not self.open:
            raise self._unusable()
        number, most, body = self.number, self._carrier.frame_max, message.body
        try:
            method = frame(number, exchange, key)
            header = encode_header(message)
        except (ValueError, struct.error) as exc:
            raise Unencodable(str(exc)) from exc
        size = len(header)
        if size + OVERHEAD > most:
            raise Unencodable(f"the headers have {size + OVERHEAD} bytes, the broker allows {most}")
        pieces = [method, HEAD.pack(HEADER, number, size), header, END]
        if len(body) + OVERHEAD > most:
            pieces += self._split(body)
        elif body:
            pieces += (HEAD.pack(BODY, number, len(body)), body, END)
        future: asyncio.Future[None] = self._carrier.loop.create_future()
        return pieces, Pending(future, size + len(body), message.message_id, exchange, key)

    async def _put_later(self, pieces: list[bytes], pending: Pending) -> None:
        """Write a message when there is room."""
        room = self._carrier.room
        await room.wait(pending.size)
        if not self.open:
            room.leave(1, pending.size)
            raise self._unusable()
        self._confirms.add(pending)
        self._carrier.send_all(pieces)
        await pending.future

    def _split(self, body: bytes) -> list[bytes]:
        """Return a body as several frames (4.2.6.2)."""
        most = self._carrier.frame_max - OVERHEAD
        pieces: list[bytes] = []
        for start in range(0, len(body), most):
            part = body[start : start + most]
            pieces += (HEAD.pack(BODY, self.number, len(part)), part, END)
        return pieces

    # --- settling ----------------------------------------------------------------------------

    def ack(self, tag: int) -> None:
        """Settle a delivery, together with others of this turn of the event loop."""
        if not self.open:
            raise self._unusable()
        acks = self._deliveries.settlements.ack(tag)
        if acks == 1:  # with the first of a turn the others go
            self._carrier.at_turn_end(self)
        elif not acks:
            raise not_ours(tag)

    def requeue(self, tag: int, *, multiple: bool = False) -> None:
        """Return one delivery, or all up to it."""
        if not self.open:
            raise self._unusable()
        frames = self._deliveries.settlements.requeue(tag, multiple=multiple)
        if frames is None:
            raise not_ours(tag)
        self._carrier.send(frames)

    def take_acks(self) -> bytes:
        """Return the frames of what was acknowledged and not sent."""
        return self._deliveries.settlements.take() if self.open else b""

    # --- frames ------------------------------------------------------------------------------

    def frame(self, kind: int, data: bytes, start: int, stop: int) -> int:
        """Take a frame of this channel, perhaps with what belongs to it; return where that ends.

        Raises:
            MalformedError: it is not one that may come now.
        """
        if kind != METHOD:
            if not self._closing:
                take = self._content.header if kind == HEADER else self._content.body
                take(data[start:stop])
            return stop + 1
        (index,) = U32.unpack_from(data, start)
        if self._closing:
            self._closing_method(index)
        elif self._content.arriving:
            raise MalformedError("a method came where a message was to go on")
        elif index == methods.BASIC_DELIVER:
            return self._deliveries.take(data, start, stop, self._carrier.frame_max)
        else:
            self._method(index, data[start + 4 : stop])
        return stop + 1

    def _method(self, index: int, arguments: bytes) -> None:
        match index:
            case methods.BASIC_ACK | methods.BASIC_NACK:
                number, multiple = methods.read_confirm(arguments)
                taken = index == methods.BASIC_ACK
                self._confirms.settle(number, multiple=multiple, taken=taken)
            case methods.BASIC_RETURN:
                told = methods.read_return(arguments)
                self._content.begin(
                    lambda message: self._confirms.returned(told, message.message_id)
                )
            case methods.BASIC_CANCEL:
                self._cancelled(*methods.read_cancel(arguments))
            case methods.CHANNEL_CLOSE:
                self._closed_by_peer(*methods.read_close(arguments))
            case methods.CHANNEL_FLOW:
                active = methods.read_flow(arguments)
                self._carrier.flow(self, active=active)
                self._carrier.send(methods.flow_ok(self.number, active=active))
            case _:
                self._calls.answered(index, arguments)

    def _cancelled(self, tag: bytes, no_wait: bool) -> None:  # noqa: FBT001 - as it was read
        consumer = self._deliveries.remove(tag)
        if not no_wait:
            self._carrier.send(methods.cancel_ok(self.number, tag))
        if consumer is not None:
            tell(consumer.on_cancelled, consumer.tag)

    def _closed_by_peer(self, code: int, text: str) -> None:
        self._carrier.send(methods.method(self.number, methods.CHANNEL_CLOSE_OK))
        self._carrier.forget(self)
        self.end(text, lambda: ChannelDown(code, text))

    def _closing_method(self, index: int) -> None:
        """While we close, everything else is dropped; the peer may close too (channel.close)."""
        if index == methods.CHANNEL_CLOSE:
            self._carrier.send(methods.method(self.number, methods.CHANNEL_CLOSE_OK))
        elif index == methods.CHANNEL_CLOSE_OK:
            self._carrier.forget(self)
            self._gone.set()
