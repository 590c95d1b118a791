"""The few commands of memcached that are needed, in its meta protocol (memcached 1.6 and later)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.wording import shorten
from cluster_kit_aiocache.memcached_connections import ProtocolError

if TYPE_CHECKING:
    from cluster_kit_aiocache.memcached_connections import Answer, Connections

MOST_CALLS = 20
"""At a time by one adapter, each on a connection of its own."""

MOST_KEY_BYTES = 250
_NO_KEY = re.compile(rb"[\x00-\x20\x7f]")  # would end it, and begin another command


class RefusalError(ProtocolError):
    """The server would not do it: it has no memory left."""


class StrangerError(ProtocolError):
    """What answers is no memcached.

    Args:
        said: how its answer began.
    """

    def __init__(self, said: bytes) -> None:
        text = shorten(said.decode("ascii", errors="replace"))
        super().__init__(f"what answers there is no memcached: {text!r}")


DRIVER_ERRORS = (ProtocolError, OSError, EOFError, TimeoutError)
"""What may come out of a call."""


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


class MemcachedClient:
    """Talks to one server for one adapter.

    Those of an instance share connections and no places: a burst of one holds up no call of
    another, as a cache would the renewal of a lock.

    Keys are 1 to 250 bytes without spaces and control characters; that is the caller's to see to.

    Args:
        connections: to the server.

    Attributes:
        places: see `MOST_CALLS`; who asks takes one.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.places: asyncio.Semaphore = asyncio.Semaphore(MOST_CALLS)

    async def retire(self, since: float) -> None:
        """Use no connection again that was idle all the time since: one was silent all the time."""
        self._connections.retire(since)

    async def version(self) -> str:
        """Return the version of the server.

        Raises:
            StrangerError: it is no memcached.
        """
        async with self._connections.one() as connection:
            connection.writer.write(b"version\r\n")
            try:
                answer = await connection.answer()
            except (EOFError, ConnectionError) as exc:
                if connection.unread:
                    raise StrangerError(connection.unread) from exc
                raise
        if answer[0][0] not in {b"VERSION", b"SERVER_ERROR"}:
            raise StrangerError(b" ".join(answer[0]))
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

    async def seconds_left(self, key: bytes) -> int | None:
        """Return for how long a value lives on, by the server's clock; None when it is gone."""
        return _left(await self._command(b"mg %b t\r\n" % key))

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
        async with self._connections.one() as connection:
            connection.writer.write(b"".join(requests))
            await connection.writer.drain()
            return [await connection.answer() for _ in requests]

    async def _command(self, request: bytes) -> Answer:
        [answer] = await self.ask(request)
        return answer


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
