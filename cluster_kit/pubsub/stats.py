"""Counters of an instance's broadcasts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit.pubsub.lane import Lane

MAX_NAMES = 10_000
"""Names counted apart; what comes beyond is counted together, as `OTHERS`."""

OTHERS = "(others)"
"""What all beyond the limit is counted under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastStats:
    """What this instance did since it was made; `waiting` and `lag` are now.

    Attributes:
        published: messages the broker has taken.
        delivered: calls of handlers that ended well.
        failed: calls that did not, and messages that could not be decoded.
        dropped: messages that came while the buffer was full.
        repeated: messages that came twice and were handled once.
        malformed: messages with metadata that could not be read, and was passed over.
        gaps: times that messages may have been missing.
        waiting: messages that wait for a handler, those held by a debounce included.
        lag: seconds the oldest of them in line has waited here.
    """

    published: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    repeated: int = 0
    malformed: int = 0
    gaps: int = 0
    waiting: int = 0
    lag: float = 0.0


class Counters:
    """Counts the telemetry of broadcasts by subscription, and publishing by channel."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def count(self, event: str, name: str) -> None:
        """Count one event such as ``broadcast.delivered``."""
        if name not in self._counts and len(self._counts) >= MAX_NAMES:
            name = OTHERS
        self._counts.setdefault(name, Counter())[event.removeprefix("broadcast.")] += 1

    def snapshot(self, lanes: Iterable[Lane]) -> dict[str, BroadcastStats]:
        """Return the counters of every name seen so far."""
        waiting: Counter[str] = Counter()
        lag: dict[str, float] = {}
        for lane in lanes:
            waiting[lane.name] += lane.waiting
            lag[lane.name] = max(lag.get(lane.name, 0.0), lane.lag)
        return {
            name: self._stats(name, waiting[name], lag.get(name, 0.0))
            for name in sorted({*self._counts, *waiting})
        }

    def _stats(self, name: str, waiting: int, lag: float) -> BroadcastStats:
        counts = self._counts.get(name, Counter[str]())
        return BroadcastStats(
            published=counts["published"],
            delivered=counts["delivered"],
            failed=counts["failed"],
            dropped=counts["dropped"],
            repeated=counts["repeated"],
            malformed=counts["malformed"],
            gaps=counts["gap"],
            waiting=waiting,
            lag=lag,
        )
