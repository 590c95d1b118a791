"""Pauses between attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext

FIRST_DELAY = 0.1  # seconds before the first attempt to reconnect
LONGEST_DELAY = 5.0  # seconds between attempts at most


class Backoff:
    """Growing delays, varied at random so that instances do not come back all at once."""

    def __init__(self, context: AdapterContext, longest: float = LONGEST_DELAY) -> None:
        self._random, self._longest = context.random, longest
        self._failures = 0

    def reset(self) -> None:
        """Start over with the shortest delay."""
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        delay = min(FIRST_DELAY * 2.0 ** min(self._failures, 30), self._longest)
        self._failures += 1
        return delay * self._random.uniform(0.5, 1.0)
