"""A memcached that a test slows down: the commands that locks and caches send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

_FOREVER = 1e9


class Stored(NamedTuple):
    body: bytes
    ends: float
    cas: int


class FakeMemcached:
    """Takes its time for what caches read.

    Attributes:
        cache_seconds: for each read of a cache.
        reads: of caches, so far.
        connections: made, so far.
    """

    def __init__(self) -> None:
        self.url = ""
        self.cache_seconds = 0.0
        self.reads = self.connections = 0
        self._items: dict[bytes, Stored] = {}
        self._cas = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with closing(writer):
            while words := (await reader.readline()).split():
                body = b""
                if words[0] == b"ms":
                    body = (await reader.readexactly(int(words[2]) + 2))[:-2]
                elif words[0] == b"mg" and not words[1].startswith(b"ck."):
                    self.reads += 1
                    await asyncio.sleep(self.cache_seconds)
                writer.write(self._answer(words, body))

    def _answer(self, words: list[bytes], body: bytes) -> bytes:
        match words[0]:
            case b"version":
                answer = b"VERSION 1.6.21"
            case b"ma":
                answer = b"VA 16\r\n%d" % (time.time() * 1_000_000)
            case b"md":
                answer = b"NF" if self._items.pop(words[1], None) is None else b"HD"
            case b"ms":
                answer = b"HD" if self._store(words, body) else b"NS"
            case _:
                answer = self._get(words)
        return answer + b"\r\n"

    def _found(self, key: bytes) -> Stored | None:
        found = self._items.get(key)
        return None if found is None or found.ends < time.time() else found

    def _get(self, words: list[bytes]) -> bytes:
        if (found := self._found(words[1])) is None:
            return b"EN"
        told = {b"t": int(found.ends) - int(time.time()), b"c": found.cas}
        flags = b"".join(b" %b%d" % (word, told[word]) for word in words[2:] if word in told)
        if b"v" in words:
            return b"VA %d%b\r\n%b" % (len(found.body), flags, found.body)
        return b"HD" + flags

    def _store(self, words: list[bytes], body: bytes) -> bool:
        found = self._found(words[1])
        flags = {word[:1]: word[1:] for word in words[3:]}
        if b"C" in flags:
            fits = found is not None and found.cas == int(flags[b"C"])
        else:
            fits = found is None or flags.get(b"M") != b"E"
        if fits:
            self._cas += 1
            ends = time.time() + (int(flags[b"T"]) or _FOREVER)
            self._items[words[1]] = Stored(body, ends, self._cas)
        return fits


@asynccontextmanager
async def fake_memcached() -> AsyncIterator[FakeMemcached]:
    server = FakeMemcached()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"memcached://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
