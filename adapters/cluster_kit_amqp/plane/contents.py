"""Messages as they arrive: a method, then a header, then frames of the body (4.2.6)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from cluster_kit_amqp.link import Message
from cluster_kit_amqp.plane.frames import BODY, END, HEAD, HEADER, OVERHEAD, MalformedError
from cluster_kit_amqp.plane.properties import body_size, decode_message

MOST_BYTES = 1 << 30  # of a body; RabbitMQ takes at most half of that

_HEAD_SIZE = HEAD.size
_END = END[0]

OnContent = Callable[[Message], None]

_HEADER_FRAME = struct.Struct(">BHI4xQ")
"""What the frame of a header begins with: type, channel, size; behind the ids, the body's size."""

_BETWEEN = struct.Struct(">BBHI")
"""The end of a frame and what the next begins with."""

_LEAST = _HEADER_FRAME.size + 2 * OVERHEAD
"""No header frame and body frame together are smaller, bytes."""


def whole(data: bytes, at: int, channel: int, largest: int) -> tuple[Message, int] | None:
    """Return the message whose frames begin at `at`, and where they end.

    None: it is not all there, or is not one frame each of header and body as they may be, and must
    be looked at frame by frame.
    """
    if at + _LEAST > len(data):
        return None
    kind, number, size, length = _HEADER_FRAME.unpack_from(data, at)
    start = at + _HEAD_SIZE
    stop = start + size
    begin = stop + OVERHEAD
    end = begin + length
    if end >= len(data) or size + OVERHEAD > largest or end - stop > largest:
        return None
    if kind != HEADER or number != channel or data[end] != _END:
        return None
    if _BETWEEN.unpack_from(data, stop) != (_END, BODY, channel, length):
        return None
    return decode_message(data[start:stop], data[begin:end]), end + 1


class Content:
    """Puts the message together that is arriving on a channel.

    Attributes:
        arriving: whether a message has begun and is not complete.
    """

    def __init__(self) -> None:
        self.arriving: bool = False
        self._complete: OnContent | None = None
        self._message: Message | None = None
        self._missing = 0
        self._parts: list[bytes] = []

    def begin(self, complete: OnContent) -> None:
        """A method has come that a message follows; `complete` is called with it."""
        self.arriving = True
        self._complete = complete

    def body(self, payload: bytes) -> None:
        """Take a body frame.

        Raises:
            MalformedError: it is not what should come now.
        """
        if self._message is None:
            raise MalformedError("the body of a message came without its header")
        if not self._parts and len(payload) == self._missing:
            self._finish(payload)
        else:
            self._part(payload)

    def header(self, payload: bytes) -> None:
        """Take a header frame.

        Raises:
            MalformedError: it is not what should come now.
        """
        if not self.arriving or self._message is not None:
            raise MalformedError("the header of a message came out of place")
        self._missing = body_size(payload)
        if self._missing > MOST_BYTES:
            raise MalformedError(f"a message of {self._missing} bytes is announced")
        self._message = decode_message(payload)
        if not self._missing:
            self._finish(b"")

    def _part(self, payload: bytes) -> None:
        if not payload or len(payload) > self._missing:
            raise MalformedError("the body of a message is not as long as its header said")
        self._parts.append(payload)
        self._missing -= len(payload)
        if not self._missing:
            self._finish(b"".join(self._parts))

    def _finish(self, body: bytes) -> None:
        complete, message = self._complete, self._message
        self.arriving, self._complete, self._message = False, None, None
        self._parts.clear()
        if complete is not None and message is not None:
            message.body = body
            complete(message)
