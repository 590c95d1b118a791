"""A server that says what a test tells it to, in the words of another codec."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pamqp import body, commands, frame, header

from cluster_kit_amqp.link import Link
from cluster_kit_amqp.options import parse_url
from cluster_kit_amqp.plane.link import dial

M = TypeVar("M")

_CLOSE = b"\x00\x0a\x00\x32"  # class and method id of connection.close
PATIENCE = 5.0  # seconds


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.passed: list[Any] = []

    async def greeted(self) -> None:
        assert await self._reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"

    async def next(self) -> tuple[int, Any]:
        """Return channel and content of the next frame."""
        head = await self._reader.readexactly(7)
        rest = await self._reader.readexactly(int.from_bytes(head[3:7], "big") + 1)
        _, channel, told = frame.unmarshal(head + rest)
        return channel, told

    async def expect(self, kind: type[M]) -> M:
        """Pass over frames until one of this kind comes."""
        while True:
            _, told = await self.next()
            if isinstance(told, kind):
                return told
            self.passed.append(told)

    def send(self, channel: int, *frames: Any) -> None:
        self.raw(b"".join(frame.marshal(made, channel) for made in frames))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def deliver(
        self,
        channel: int,
        tag: int,
        *bodies: bytes,
        consumer: str,
        properties: commands.Basic.Properties | None = None,
    ) -> None:
        size = sum(map(len, bodies))
        self.send(
            channel,
            commands.Basic.Deliver(consumer, tag, False, "x", "k"),
            header.ContentHeader(body_size=size, properties=properties),
            *map(body.ContentBody, bodies),
        )

    async def start(self, **fields: Any) -> None:
        await self.greeted()
        told = {"server_properties": {"product": "RabbitMQ", "version": "4.0.0"}, **fields}
        self.send(0, commands.Connection.Start(0, 9, **told))

    async def open(self, *, heartbeat: int = 0, frame_max: int = 131072) -> None:
        """Open the connection."""
        await self.start()
        await self.expect(commands.Connection.StartOk)
        self.send(0, commands.Connection.Tune(100, frame_max, heartbeat))
        await self.expect(commands.Connection.TuneOk)
        await self.expect(commands.Connection.Open)
        self.send(0, commands.Connection.OpenOk())

    async def open_channel(self, number: int = 1) -> None:
        """Open the connection and a channel with confirms."""
        await self.open()
        await self.channel_opened(number)

    async def channel_opened(self, number: int = 1) -> None:
        await self.expect(commands.Channel.Open)
        self.send(number, commands.Channel.OpenOk())
        await self.expect(commands.Confirm.Select)
        self.send(number, commands.Confirm.SelectOk())

    async def consumer(self, number: int = 1) -> str:
        """Let a consumer begin and return its tag."""
        await self.expect(commands.Basic.Qos)
        self.send(number, commands.Basic.QosOk())
        consume = await self.expect(commands.Basic.Consume)
        self.send(number, commands.Basic.ConsumeOk(consume.consumer_tag))
        return consume.consumer_tag

    async def until_gone(self) -> None:
        """Say nothing more, until the client has gone or wants to close the connection."""
        while data := await self._reader.read(4096):
            if _CLOSE in data:
                return


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def served(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve by `script`, then say nothing more; give the URL."""
    errors: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        try:
            await script(peer)
            await peer.until_gone()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left, as it should on nonsense
        except Exception as exc:  # noqa: BLE001 - told by the test, not by the server's task
            errors.append(exc)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        async with asyncio.timeout(PATIENCE):
            yield f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
    assert errors == []


async def dialled(url: str) -> Link:
    options = parse_url(url)
    return await dial(options, options.hosts[0], tls=None, name="test")


@asynccontextmanager
async def linked(script: Script, *, query: str = "") -> AsyncIterator[Link]:
    """A link to a server that follows `script`."""
    async with served(script) as url:
        link = await dialled(url + query)
        try:
            yield link
        finally:
            await link.close()
