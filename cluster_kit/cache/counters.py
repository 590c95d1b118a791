"""Counters: in the store, or without one in this process."""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cluster_kit.cache.remote import Remote
    from cluster_kit.clock import Clock


MOST_COUNTERS = 10_000
"""Of one cache in this process, where it may not hold more values than that."""

_MOST_RESETS = 100  # that are known to be carried out


class Counters(Protocol):
    """The counters of one cache."""

    async def increment(self, key: str, amount: int, ttl: float | None) -> int:
        """Add to a counter and return it; the first addition begins its ttl."""
        ...

    async def count(self, key: str, *, clear: bool) -> int:
        """Return a counter, 0 where there is none; with `clear` end it."""
        ...


class StoreCounters:
    """Counters in the store, which is told first of a reset it has not heard of.

    What is counted before would be taken away, although it was answered.

    Args:
        remote: the store.
        settle: tells it; raises `CacheUnavailable` where that fails, as all do here.
    """

    def __init__(self, remote: Remote, settle: Callable[[], Awaitable[None]]) -> None:
        self._remote = remote
        self._settle = settle

    async def increment(self, key: str, amount: int, ttl: float | None) -> int:
        """Add to a counter; see `Counters`."""
        await self._settle()
        return await self._remote.increment(key, amount, ttl)

    async def count(self, key: str, *, clear: bool) -> int:
        """Return a counter; see `Counters`."""
        await self._settle()
        return await self._remote.count(key, clear=clear)


class LocalCounters:
    """Counters of this process alone; beyond `most` go those not raised for the longest time.

    Args:
        most: how many.
        clock: tells the time.
    """

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._resets: deque[str] = deque(maxlen=_MOST_RESETS)

    async def increment(self, key: str, amount: int, ttl: float | None) -> int:
        """Add to a counter; see `Counters`."""
        now = self._clock.monotonic()
        count, end = self._counts.get(key, (0, -inf))
        if end <= now:
            count, end = 0, inf if ttl is None else now + ttl
        self._counts[key] = (count + amount, end)
        self._counts.move_to_end(key)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)
        return count + amount

    async def count(self, key: str, *, clear: bool) -> int:
        """Return a counter; see `Counters`."""
        count, end = self._counts.get(key, (0, -inf))
        if clear:
            self._counts.pop(key, None)
        return count if end > self._clock.monotonic() else 0

    def reset(self, ids: Sequence[str]) -> None:
        """End all of them, once: `ids` are those of resets, which may be heard of again."""
        unknown = [reset for reset in ids if reset not in self._resets]
        if unknown:
            self._resets.extend(unknown)
            self._counts.clear()
