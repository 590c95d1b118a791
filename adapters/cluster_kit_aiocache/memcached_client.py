"""The few commands of memcached that are needed, in its meta protocol (memcached 1.6 and later).

A connection whose command did not end in order, by an error or because its
caller was cancelled, is closed and never used again. An answer that stays in such a connection
would be taken for that of the next command: two would hold one lock, or get another's value. So is
one in which something stands that nobody has asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from cluster_kit_aiocache.sharing import Shared

if TYPE_CHECKING:
    from cluster_kit_aiocache.memcached_options import MemcachedOptions

MOST_CONNECTIONS = 20
MOST_KEY_BYTES = 250
_NO_KEY = re.compile(rb"[\x00-\x20\x7f]")  # would end it, and begin another command


class ProtocolError(Exception):
    """The server answered what the command cannot have for an answer."""


class NoNumberError(ProtocolError):
    """What was to be counted up is no number."""


class RefusalError(ProtocolError):
    """The server would not do it: it has no memory left."""


DRIVER_ERRORS = (ProtocolError, OSError, EOFError, TimeoutError)
"""What may come out of a call."""


Answer = tuple[list[bytes], bytes]
"""Words of the first line, and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A stored value. `seconds_left` is None when it does not expire."""

    value: bytes
    cas: int
    seconds_left: int | None


def key_of(name: str) -> bytes:
    """Return the key of a name: itself, or its digest where it cannot be one."""
    encoded = name.encode()
    if len(encoded) <= MOST_KEY_BYTES and _NO_KEY.search(encoded) is None:
        return encoded
    return b"ck.long." + hashlib.sha256(encoded).hexdigest().encode()


class _Connection(asyncio.StreamReaderProtocol):
    """Counts what has arrived and was not read."""

    writer: asyncio.StreamWriter

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self._unread = 0
        self.answered = 0.0  # when it was last done with a command

    @property
    def usable(self) -> bool:
        """Whether the answer to the next request is the next that will arrive."""
        return not (self._unread or self.reader.at_eof() or self.writer.is_closing())

    def data_received(self, data: bytes) -> None:
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


class MemcachedClient:
    """Talks to one server, over several connections made when needed.

    Keys are 1 to 250 bytes without spaces and control characters; that is the caller's to see to.

    Attributes:
        places: one for each connection; who asks takes one.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._free: list[_Connection] = []
        self.places: asyncio.Semaphore = asyncio.Semaphore(MOST_CONNECTIONS)
        self._closed = False

    async def close(self) -> None:
        """Close the connections; those in use end with their command."""
        self._closed = True
        await self.retire(inf)

    async def retire(self, since: float) -> None:
        """Use no connection again that was idle all the time since: one was silent all the time."""
        silent = [one for one in self._free if one.answered <= since]
        self._free = [one for one in self._free if one.answered > since]
        for connection in silent:
            connection.writer.close()

    async def version(self) -> str:
        """Return the version of the server."""
        answer = await self._command(b"version\r\n")
        return expect(answer, b"VERSION")[0].decode()

    async def add(self, key: bytes, value: bytes, ttl: int) -> bool:
        """Store a value unless there is one; whether it was stored."""
        head = b"ms %b %d T%d ME\r\n%b\r\n" % (key, len(value), ttl, value)
        return stored(await self._command(head))

    async def store_beside(
        self, other: bytes, key: bytes, value: bytes, ttl: int, cas: int | None
    ) -> tuple[int | None, bool]:
        """Store a value over that of `cas`, or where there is none, and look at another key before.

        Returns:
            The seconds the other had left, None when it is gone, and whether it was stored.
        """
        mode = b"ME" if cas is None else b"C%d" % cas
        store = b"ms %b %d T%d %b\r\n%b\r\n" % (key, len(value), ttl, mode, value)
        seen, done = await self.ask(b"mg %b t\r\n" % other, store)
        return _left(seen), stored(done)

    async def seconds_left(self, key: bytes) -> int:
        """Return for how long a value is to live on, by the server's clock.

        Raises:
            ProtocolError: there is none.
        """
        left = _left(await self._command(b"mg %b t\r\n" % key))
        if left is None:
            raise ProtocolError("a value is gone before its time")
        return left

    async def delete(self, key: bytes, cas: int) -> bool:
        """Delete the value of `cas`; False when it is another one or gone."""
        return stored(await self._command(b"md %b C%d\r\n" % (key, cas)))

    async def get(self, key: bytes) -> Item | None:
        """Return what is stored."""
        words, value = await self._command(b"mg %b v c t\r\n" % key)
        if words[0] == b"EN":
            return None
        expect((words, value), b"VA")
        flags = {word[:1]: int(word[1:]) for word in words[2:]}
        left = flags[b"t"]
        return Item(value=value, cas=flags[b"c"], seconds_left=None if left < 0 else left)

    async def increment(self, key: bytes, first: int) -> int:
        """Add one to a counter that begins with `first` where there is none, and return it."""
        answer = await self._command(b"ma %b N0 J%d v\r\n" % (key, first))
        expect(answer, b"VA")
        return int(answer[1])

    # --- one command -----------------------------------------------------------------------------

    async def ask(self, *requests: bytes) -> list[Answer]:
        """Send requests together; return the answer of each.

        Each request has one answer: none is quiet.
        """
        if not requests:
            return []
        async with self._connection() as connection:
            connection.writer.write(b"".join(requests))
            await connection.writer.drain()
            return [await connection.answer() for _ in requests]

    async def _command(self, request: bytes) -> Answer:
        [answer] = await self.ask(request)
        return answer

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[_Connection]:
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

    async def _take(self) -> _Connection:
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        return await _connected(self._host, self._port)


async def _connected(host: str, port: int) -> _Connection:
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(_Connection, host, port)
    connection.writer = asyncio.StreamWriter(transport, connection, connection.reader, loop)
    return connection


def _left(answer: Answer) -> int | None:
    if answer[0][0] == b"EN":
        return None
    return int(expect(answer, b"HD")[0][1:])


def expect(answer: Answer, wanted: bytes) -> list[bytes]:
    """Return what follows the word `wanted`.

    Raises:
        ProtocolError: the answer is another one.
    """
    words, _ = answer
    if words[0] != wanted:
        kind = RefusalError if words[0] == b"SERVER_ERROR" else ProtocolError
        raise kind(b" ".join(words).decode(errors="replace"))
    return words[1:]


def stored(answer: Answer) -> bool:
    """Return whether a write was done; not, where its condition did not hold.

    Raises:
        ProtocolError: it failed.
    """
    if answer[0][0] in {b"NS", b"EX", b"NF"}:
        return False
    expect(answer, b"HD")
    return True


MEMCACHED: Shared[MemcachedOptions, MemcachedClient] = Shared(
    lambda options, _: MemcachedClient(options.host, options.port), MemcachedClient.close
)
"""Of this process: a client for each server and instance."""
