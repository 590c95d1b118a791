"""The clock by which a memcached lets values go.

It counts whole seconds and is set by a timer, so that it is up to two seconds behind, and by as
much as the server was stopped when it goes on. A value that is stored then goes that much earlier.
So a value of the instance's own counts down beside the locks. Who sees it change knows a moment at
which the clock was right; who asks for it together with a lock knows what the clock was then.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.clock import BootClock
from cluster_kit.errors import LockUnavailable
from cluster_kit.names import new_id
from cluster_kit_aiocache.memcached_client import RefusalError
from cluster_kit_aiocache.server import PROBE_SECONDS, say

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_aiocache.memcached_client import MemcachedClient
    from cluster_kit_aiocache.memcached_server import MemcachedServer

_DRIFT = 0.999  # clocks of two machines may run that differently
_LOOK_SECONDS = 0.02
_SHARP_SECONDS = 0.1
_MOST_CHANGES = 3
_LONGEST_READING = 10.0
_EVERY_SECONDS = 30.0
_AGAIN_SECONDS = 0.2
_LIVES_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Reading:
    """The clock of the server beside ours.

    Attributes:
        key: of the value that counts down.
        since: reading of our clock before the change to `left`.
        left: seconds the value had left after that change.
    """

    key: bytes
    since: float
    left: int

    def certain_until(self, left: int, ttl: int) -> float:
        """Return the reading of our clock until which a value is certainly there.

        Args:
            left: seconds that `key` had left before the value was stored.
            ttl: seconds for which it was.
        """
        # Whole seconds: at the change the time itself was less than one ahead of the clock.
        return self.since + (self.left - left + ttl - 1) * _DRIFT


class ServerClock:
    """Reads the clock of one server, again and again until it is closed.

    Args:
        server: that of the locks.
        context: of the instance.
    """

    def __init__(self, server: MemcachedServer, context: AdapterContext) -> None:
        self._server = server
        self._clock = BootClock()
        self._reading: Reading | None = None
        self._known = asyncio.Event()
        self._doubted = asyncio.Event()
        self._follower = context.tasks.spawn(self._follow(), name="clock of memcached")

    async def close(self) -> None:
        """Read it no more."""
        self._follower.cancel()
        await asyncio.wait({self._follower})

    def now(self) -> float:
        """Return the reading of our clock."""
        return self._clock.monotonic()

    async def reading(self) -> Reading:
        """Return the last reading; wait for the first one, which takes about a second."""
        while self._reading is None:
            await self._known.wait()
        return self._reading

    def doubt(self, reading: Reading) -> None:
        """Its value is gone, as after a restart of the server: read anew."""
        if self._reading is reading:
            self._reading = None
            self._known.clear()
            self._doubted.set()

    async def _follow(self) -> None:
        """Read the clock now and then: no two clocks run alike for long."""
        while True:
            self._doubted.clear()
            with suppress(
                LockUnavailable, TimeoutError
            ):  # whoever stores a lock hears of them, too
                async with asyncio.timeout(_LONGEST_READING):
                    self._reading = await self._read()
                    self._known.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS if self._reading else _AGAIN_SECONDS):
                    await self._doubted.wait()

    async def _read(self) -> Reading:
        """Look for changes of a fresh value until one was seen sharply; return the sharpest."""
        key = f"ck.c.{new_id()}".encode()
        await self._server.ask("", partial(_begin, key), PROBE_SECONDS)
        seen: list[tuple[float, Reading]] = []
        while len(seen) < _MOST_CHANGES:
            seen.append(await self._change(key))
            if seen[-1][0] < _SHARP_SECONDS:
                break
        return min(seen, key=lambda one: one[0])[1]

    async def _change(self, key: bytes) -> tuple[float, Reading]:
        """Wait for a change; return within how many seconds it was, and what it tells."""
        asked_at, left = self.now(), await self._left(key)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            since, before = asked_at, left
            asked_at, left = self.now(), await self._left(key)
            if left < before:
                return self.now() - since, Reading(key, since, left)

    async def _left(self, key: bytes) -> int:
        left = await self._server.ask("", partial(_seconds_left, key), PROBE_SECONDS)
        if left is None:
            raise LockUnavailable("", "what tells its clock is gone before its time")
        return left


async def _begin(key: bytes, client: MemcachedClient) -> None:
    try:
        await client.add(key, b"", _LIVES_SECONDS)
    except RefusalError as exc:  # a full server is there all the same
        raise LockUnavailable("", say(exc)) from exc


async def _seconds_left(key: bytes, client: MemcachedClient) -> int | None:
    return await client.seconds_left(key)
