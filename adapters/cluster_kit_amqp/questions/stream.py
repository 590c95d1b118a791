"""The byte stream under aiormq, with an eye on the frames that pass.

aiormq keeps to itself why a peer closed and that it blocks; it ends the connection over a message
whose properties it cannot decode, so that one foreign message would end it again and again; and it
notices a lost peer only after its own clean-up. All three are seen here.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiormq.connection import TransportFactory
from pamqp.header import ContentHeader

from cluster_kit_amqp.link import LinkDown

if TYPE_CHECKING:
    import ssl

    from cluster_kit_amqp.options import Host

_FRAME_HEAD = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_FRAME_TYPES = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
_LARGEST_FRAME = 1 << 27
_CLOSE, _BLOCKED, _UNBLOCKED = b"\x00\x0a\x00\x32", b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d"
_FIXED_PART_OF_HEADER = 12  # class, weight, size of the body
_NO_PROPERTIES = b"\x00\x00"


@dataclass(slots=True)
class Observed:
    """What was seen on the stream.

    Attributes:
        lost: why the stream ended; None while it flows.
        blocked: why the broker blocks publishers; None when it does not.
        closed_by: reply code and text with which the broker closed the connection.
        on_change: called when `lost` or `blocked` changed.
    """

    lost: str | None = None
    blocked: str | None = None
    closed_by: tuple[int, str] | None = None
    on_change: Callable[[], None] | None = None
    writer: asyncio.StreamWriter | None = field(default=None, repr=False)

    def end(self, reason: str) -> None:
        """The stream is of no use any more. The first reason stays."""
        if self.lost is None:
            self.lost = self.explain(reason)
            self.abort()
            self._changed()

    def require(self, *, sent: bool = False) -> None:
        """Raise `LinkDown` with the reason when the stream has ended."""
        if self.lost is not None:
            raise LinkDown(self.lost, sent=sent)

    def explain(self, reason: str) -> str:
        """Return the broker's own words where it gave any, else `reason`."""
        return reason if self.closed_by is None else f"{self.closed_by[0]} {self.closed_by[1]}"

    def abort(self) -> None:
        """Drop the socket at once; data still to be written would keep it for long."""
        if self.writer is not None:
            self.writer.transport.abort()

    def method(self, payload: bytes) -> None:
        """Note a method of channel 0."""
        kind = payload[:4]
        if kind == _CLOSE:
            code = int.from_bytes(payload[4:6], "big")
            self.closed_by = (code, _short_string(payload[6:]))
        elif kind == _BLOCKED:
            self.blocked = _short_string(payload[4:]) or "no reason given"
            self._changed()
        elif kind == _UNBLOCKED:
            self.blocked = None
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


def _short_string(data: bytes) -> str:
    return data[1 : 1 + data[0]].decode("utf-8", "replace") if data else ""


class FrameReader(asyncio.StreamReader):
    """Reads whole frames, looks at them, and serves their bytes."""

    def __init__(self, observed: Observed) -> None:
        super().__init__(limit=1 << 18, loop=asyncio.get_running_loop())
        self._observed = observed
        self._frame: bytes = b""
        self._served = 0

    def at_eof(self) -> bool:
        """Whether the peer has closed and nothing is left to serve."""
        return self._served == len(self._frame) and super().at_eof()

    async def readexactly(self, n: int) -> bytes:
        """Return the next `n` bytes of frames."""
        if self._served == len(self._frame):
            try:
                self._frame, self._served = await self._next_frame(), 0
            except asyncio.IncompleteReadError:
                self._observed.end("the peer closed the connection")
                raise
            except asyncio.CancelledError:
                self._observed.end("the connection was closed, or the peer sent no heartbeat")
                raise
            except OSError as exc:
                self._observed.end(str(exc) or type(exc).__name__)
                raise
        piece = self._frame[self._served : self._served + n]
        self._served += len(piece)
        return piece

    async def _next_frame(self) -> bytes:
        head = await super().readexactly(_FRAME_HEAD.size)
        kind, channel, size = _FRAME_HEAD.unpack(head)
        if head.startswith(b"AMQP"):
            raise ConnectionError("the server speaks another version of AMQP")
        if kind not in _FRAME_TYPES or size > _LARGEST_FRAME:
            raise ConnectionError(f"this is no AMQP server: it sent {head!r}")
        rest = await super().readexactly(size + 1)
        if kind == _METHOD and channel == 0:
            self._observed.method(rest[:-1])
        elif kind == _HEADER:
            return _decodable(head, rest, channel)
        return head + rest


def _decodable(head: bytes, rest: bytes, channel: int) -> bytes:
    """Return a content header's frame, without its properties where they cannot be decoded."""
    try:
        ContentHeader().unmarshal(rest[:-1])
    except Exception:  # noqa: BLE001 - whatever the decoder trips over must not end the connection
        payload = rest[:_FIXED_PART_OF_HEADER] + _NO_PROPERTIES
        return _FRAME_HEAD.pack(_HEADER, channel, len(payload)) + payload + rest[-1:]
    return head + rest


class Transport(TransportFactory):
    """Opens the socket for aiormq."""

    def __init__(self, host: Host, tls: ssl.SSLContext | None, observed: Observed) -> None:
        self._host, self._tls, self._observed = host, tls, observed

    async def create(
        self,
        url: object,  # noqa: ARG002 - only the given host counts
        **kwargs: Any,  # noqa: ARG002, ANN401 - aiormq's signature
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and return the pair of streams."""
        loop = asyncio.get_running_loop()
        reader = FrameReader(self._observed)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, self._host.name, self._host.port, ssl=self._tls
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._observed.writer = writer
        return reader, writer
