"""Frames: where they begin and end in the stream of bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8  # 4.2.3, frame types
END = b"\xce"  # 4.2.3, the octet that ends every frame
OVERHEAD = 8  # bytes of a frame beside its payload: 7 before it, 1 behind it (4.2.3)
SMALLEST_FRAME_MAX = 4096  # bytes; every peer takes frames of this size (4.2.3)
GREETING = b"AMQP\x00\x00\x09\x01"  # 4.2.2, protocol header

HEAD = struct.Struct(">BHI")
"""What a frame begins with: type, channel, size of the payload (4.2.3)."""

_HEAD_SIZE = 7
_LARGEST_HEADER = 192 * 1024  # bytes; one of 128 KiB, the usual limit, and what is added
_END_OCTET = END[0]
_TLS_ALERT = b"\x15\x03"  # what begins the answer to a greeting without TLS
_TYPES = frozenset({METHOD, HEADER, BODY, HEARTBEAT})

OnFrame = Callable[[int, int, bytes, int, int], int]
"""Called with type, channel, and the payload as data, start and stop.

Returns where to go on: behind this frame, or behind others it has taken along.
"""


class MalformedError(Exception):
    """What the peer sent is not AMQP 0-9-1, or not in its place. It ends the connection."""


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return the frame around `payload`.

    >>> frame(HEARTBEAT, 0, b"").hex()
    '08000000000000ce'
    """
    return b"%b%b\xce" % (HEAD.pack(kind, channel, len(payload)), payload)


def _is_header(kind: int, size: int) -> bool:
    """Whether it is the header of a message, which may be larger than agreed on.

    RabbitMQ checks the size of a header when it is published, perhaps by somebody who agreed on
    more. It adds to it when it delivers the message again, and cannot split it (4.2.6.1).
    """
    return kind == HEADER and size <= _LARGEST_HEADER


class FrameReader:
    """Finds the frames in a stream that comes in pieces of any size.

    Args:
        on_frame: called for every frame; its payload is a part of the data it is given.
        largest: bytes of the largest frame to be taken.

    Attributes:
        largest: may be changed between two frames.
    """

    def __init__(self, on_frame: OnFrame, largest: int) -> None:
        self._on_frame = on_frame
        self.largest: int = largest
        self._kept: list[bytes] = []
        self._size_kept = 0
        self._needed = _HEAD_SIZE

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream.

        Raises:
            MalformedError: it cannot be AMQP.
        """
        if self._kept:
            self._kept.append(data)
            self._size_kept += len(data)
            if self._size_kept < self._needed:
                return
            data = b"".join(self._kept)
            self._kept.clear()
        at = self._all_frames(data)
        if at < len(data):
            self._kept.append(data[at:] if at else data)
            self._size_kept = len(data) - at

    def _all_frames(self, data: bytes) -> int:
        """Pass on every whole frame and return where the rest begins."""
        at, end = 0, len(data)
        on_frame, unpack = self._on_frame, HEAD.unpack_from
        while end - at >= _HEAD_SIZE:
            kind, channel, size = unpack(data, at)
            if kind not in _TYPES or (
                size + OVERHEAD > self.largest and not _is_header(kind, size)
            ):
                raise self._malformed(data[at : at + OVERHEAD], kind, size)
            start = at + _HEAD_SIZE
            stop = start + size
            if stop >= end:
                self._needed = size + OVERHEAD
                return at
            if data[stop] != _END_OCTET:
                raise MalformedError(f"a frame ends in {data[stop]:#04x} instead of 0xce")
            at = on_frame(kind, channel, data, start, stop)
        self._needed = _HEAD_SIZE
        return at

    def _malformed(self, head: bytes, kind: int, size: int) -> MalformedError:
        if head.startswith(GREETING[:4]):  # 4.2.2: the answer to a version it does not speak
            return MalformedError("the server speaks another version of AMQP")
        if head.startswith(_TLS_ALERT):
            return MalformedError("the server speaks TLS on this port: it needs amqps://")
        if kind not in _TYPES:
            return MalformedError(f"this is no AMQP server: it sent {head!r}")
        return MalformedError(
            f"a frame of {size + OVERHEAD} bytes came, at most {self.largest} are agreed on"
        )
