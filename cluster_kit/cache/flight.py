"""One load of one key, and those who wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.cache.loaders import Turn
from cluster_kit.errors import CacheLoadTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.cache.local import Entry


class Flight:
    """A load that is under way.

    It belongs to the cache: one caller who goes away does not end it, unless it was the last,
    nobody went on with an older value, and its loader is async: nothing ends a thread.

    Attributes:
        key: that is loaded.
        cache: whose it is.
        outcome: gets what was loaded, or the error.
        stale: what may stand in for it; None for nothing.
        tags: of what it may return; None while that is not known.
        refused: whether what was loaded was not kept, for it was invalidated meanwhile.
        turn: of its loader, where that needs a thread.
        needs: the loads that its loader waits for.
        close: lets nobody join it any more.
        cancel: called when the last of them has gone.
    """

    def __init__(self, key: str, stale: Entry | None, cache: str, *, urgent: bool) -> None:
        self.key: str = key
        self.cache: str = cache
        self.outcome: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self.stale: Entry | None = stale
        self.tags: frozenset[str] | None = None
        self.refused: bool = False
        self.turn: Turn = Turn(urgent=urgent)
        self.needs: list[Flight] = []
        self.cancel: Callable[[], object] = self.outcome.cancel
        self.close: Callable[[], object] = lambda: None
        self._waiters: set[asyncio.Future[None]] = set()
        self.outcome.add_done_callback(self._wake)
        self._waiting = 0
        self._wanted = False

    @property
    def heard(self) -> bool:
        """Whether anybody waits for it."""
        return self._waiting > 0

    async def join(self, soft: float | None, hard: float, used_stale: Callable[[], None]) -> Entry:
        """Wait for the value.

        Args:
            soft: seconds after which an older value is taken where there is one.
            hard: seconds after which there must be an answer.
            used_stale: called when an older value is returned.

        Raises:
            CacheLoadTimeout: no value in time, and no older one; the load goes on.
            Exception: the loader's.
        """
        self._waiting += 1
        rest = max(0.0, hard)
        try:
            if soft is not None and soft < rest:
                await self._wait(soft)
                if not self.outcome.done() and self.stale is not None:
                    return self._in_place(self.stale, used_stale)
                rest -= soft
            await self._wait(rest)
            found = self.outcome.result() if self.outcome.done() else self.stale
            if found is not None and found is self.stale:
                return self._in_place(found, used_stale)
            if found is not None:
                return found
            self._wanted = True
            raise CacheLoadTimeout(self.key, max(0.0, hard), self.cache)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._wanted and not self.outcome.done():
                self.cancel()

    async def _wait(self, seconds: float) -> None:
        # Each has a future of its own: to leave that of thousands takes each of them as many steps.
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            if not self.outcome.done():
                await asyncio.wait({waiter}, timeout=seconds)
        finally:
            self._waiters.discard(waiter)

    def _wake(self, _: asyncio.Future[Entry]) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def hurry(self) -> None:
        """Let it, and all it waits for, wait for no thread: one of our threads waits for it."""
        found = [self]
        while found:
            flight = found.pop()
            if not flight.turn.urgent:
                flight.turn.hurry()
                found += flight.needs

    def background(self) -> None:
        """Let it go on although nobody waits."""
        self._wanted = True

    def _in_place(self, stale: Entry, used_stale: Callable[[], None]) -> Entry:
        self._wanted = True
        used_stale()
        return stale
