"""Connections to a memcached, shared by everything one instance uses there.

One whose command did not end in order, by an error or because its caller was cancelled, is closed
and never used again. An answer that stays in it would be taken for that of the next command: two
would hold one lock, or get another's value. So is one in which something stands that nobody has
asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING

from cluster_kit_aiocache.sharing import Shared

if TYPE_CHECKING:
    from cluster_kit_aiocache.memcached_options import MemcachedOptions


_SHOWN = 80  # bytes of what nobody can read


class ProtocolError(Exception):
    """The server answered what the command cannot have for an answer."""


class NoNumberError(ProtocolError):
    """What was to be counted up is no number."""


Answer = tuple[list[bytes], bytes]
"""Words of the first line, and the value."""


class Connection(asyncio.StreamReaderProtocol):
    """Counts what has arrived and was not read."""

    writer: asyncio.StreamWriter

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self._unread = 0
        self._begins = b""
        self.answered = 0.0  # when it was last done with a command

    @property
    def usable(self) -> bool:
        """Whether the answer to the next request is the next that will arrive."""
        return not (self._unread or self.reader.at_eof() or self.writer.is_closing())

    @property
    def unread(self) -> bytes:
        """The beginning of what was not read, also where the connection was reset behind it."""
        return self._begins if self._unread else b""

    def data_received(self, data: bytes) -> None:
        """Hand it on; called by the transport."""
        if not self._unread:
            self._begins = data[:_SHOWN]
        self._unread += len(data)
        super().data_received(data)

    async def answer(self) -> Answer:
        """Return the next answer."""
        line = await self.reader.readuntil(b"\r\n")
        self._unread -= len(line)
        words = line.split()
        if not words:
            raise ProtocolError("the server sent an empty line")
        if words[0] in {b"ERROR", b"CLIENT_ERROR"}:  # who knows what it made of the rest
            kind = NoNumberError if b"non-numeric" in words else ProtocolError
            raise kind(b" ".join(words).decode(errors="replace"))
        if words[0] != b"VA":
            return words, b""
        value = await self.reader.readexactly(int(words[1]) + 2)
        self._unread -= len(value)
        return words, value[:-2]


class Connections:
    """Makes connections to one server when they are needed, and keeps those that are free.

    There are as many as were ever in use at a time: those who ask have places for that.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._free: list[Connection] = []
        self._closed = False

    async def close(self) -> None:
        """Close them; those in use end with their command."""
        self._closed = True
        self.retire(inf)

    def retire(self, since: float) -> None:
        """Use none again that was idle all the time since: one was silent all the time."""
        silent = [one for one in self._free if one.answered <= since]
        self._free = [one for one in self._free if one.answered > since]
        for connection in silent:
            connection.writer.close()

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[Connection]:
        """Lend one for a command; it is used again unless that fails."""
        connection = await self._take()
        try:
            yield connection
        except BaseException:
            connection.writer.transport.abort()
            raise
        if self._closed:
            connection.writer.close()
        else:
            connection.answered = asyncio.get_running_loop().time()
            self._free.append(connection)

    async def _take(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        return await _connected(self._host, self._port)


async def _connected(host: str, port: int) -> Connection:
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(Connection, host, port)
    connection.writer = asyncio.StreamWriter(transport, connection, connection.reader, loop)
    return connection


CONNECTIONS: Shared[MemcachedOptions, Connections] = Shared(
    lambda options, _: Connections(options.host, options.port), Connections.close
)
"""Of this process: for each server and instance."""
