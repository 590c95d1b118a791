"""How much is published, and how far that has come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.measure import Stopwatch, Warmth

PREFETCH = 64
"""Messages that a consumer may have unacknowledged."""

POLL = 0.02
"""Seconds between two looks at a tally; the end itself is noted by the tally."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is published.

    Attributes:
        lanes: publishes under way at a time.
        seconds: after which none is begun any more; it counts if `count` is 0.
        count: how many in all.
    """

    lanes: int
    seconds: float = 0.0
    count: int = 0

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the payloads until it is enough; each lane gets one at least."""
        if self.count:
            yield from range(self.count)
            return
        watch = Stopwatch()
        for number in itertools.count():
            if number >= self.lanes and watch.seconds > self.seconds:
                return
            yield number


class Published:
    """Counts confirmed publishes."""

    def __init__(self, load: Load) -> None:
        self.count = 0
        self._warmth = Warmth(load.count)
        self._watch = Stopwatch()

    def one(self) -> None:
        """One more is confirmed."""
        self.count += 1
        self._warmth.done(self.count)

    def figures(self) -> dict[str, object]:
        """Return what it took until now."""
        timed = self._watch.stop(self.count)
        self._warmth.look()
        return timed.figures() | self._warmth.figures()
