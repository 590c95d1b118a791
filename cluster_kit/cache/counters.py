"""Counters: in the store, or without one in this process."""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
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

    def reset(self, name: str) -> None:
        """End all of them, once: `name` is that of the reset, which may be heard of again."""
        if name not in self._resets:
            self._resets.append(name)
            self._counts.clear()
