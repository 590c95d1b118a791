"""A socket that speaks just enough AMQP 0-9-1 to find out how fast the broker is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from pamqp import base, body, commands, frame, header
from pamqp.exceptions import UnmarshalingException

_RECEIVE_BYTES = 1 << 20
_FRAME_MAX = 131072
_CHANNEL = 1
_TIMEOUT = 30.0


class RawLink:
    """One connection with one channel.

    Args:
        connection: to the broker.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""

    def open(self, user: str, password: str, vhost: str) -> None:
        """Log in and open the channel."""
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(commands.Connection.Start)
        self._tell(commands.Connection.StartOk({}, "PLAIN", f"\0{user}\0{password}", "en_US"), 0)
        self._expect(commands.Connection.Tune)
        self._tell(commands.Connection.TuneOk(_CHANNEL, _FRAME_MAX, 0), 0)
        self.ask(commands.Connection.Open(vhost), commands.Connection.OpenOk, channel=0)
        self.ask(commands.Channel.Open(), commands.Channel.OpenOk)

    def ask(
        self, request: base.Frame, answer: type[base.Frame], *, channel: int = _CHANNEL
    ) -> None:
        """Send a request and wait for its answer."""
        self._tell(request, channel)
        self._expect(answer)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Return whatever has come."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the broker hung up")
        return data

    def _tell(self, request: base.Frame, channel: int) -> None:
        self._socket.sendall(frame.marshal(request, channel))

    def _expect(self, answer: type[base.Frame]) -> None:
        data = self.receive()
        while True:
            try:
                size, _, got = frame.unmarshal(data)
            except UnmarshalingException:
                data += self._socket.recv(_RECEIVE_BYTES)
                continue
            self._rest = data[size:]
            if not isinstance(got, answer):
                raise ConnectionError(f"the broker answered {got!r} instead of {answer.name}")
            return


@contextmanager
def raw_link(url: str) -> Iterator[RawLink]:
    """Connect to the broker at `url`."""
    parts = urlsplit(url)
    address = (parts.hostname or "localhost", parts.port or 5672)
    with socket.create_connection(address, _TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = RawLink(connection)
        link.open(
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
            unquote(parts.path.removeprefix("/")) or "/",
        )
        yield link
        link.ask(commands.Connection.Close(200, "", 0, 0), commands.Connection.CloseOk, channel=0)


def published(queue: str, content: bytes) -> bytes:
    """Return the frames of one persistent, mandatory publish through the default exchange."""
    properties = commands.Basic.Properties(content_type="application/json", delivery_mode=2)
    return b"".join(
        frame.marshal(part, _CHANNEL)
        for part in (
            commands.Basic.Publish(exchange="", routing_key=queue, mandatory=True),
            header.ContentHeader(0, len(content), properties),
            body.ContentBody(content),
        )
    )
