"""The result of a soak: counts, and what the two processes have grown by."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from integration.load.report import Row
from integration.load.vitals import Vitals

_WARM = 0.2
"""Share of the run after which memory may not grow any more."""

_GROWTH = 1.1, 8.0
"""Memory at the end may be so many times that after the warm-up, plus so many MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a soak has shown.

    Attributes:
        confirmed: tasks whose publish returned.
        processed: different tasks that were run.
        again: runs of a task that had been run.
        lost: the first of those that were confirmed and never run.
        lost_count: how many they are.
        closed: connections that were closed.
        closed_by: by whom.
        seconds: of publishing.
        sides: rows on the two processes.
    """

    confirmed: int
    processed: int
    again: int
    lost: list[int]
    lost_count: int
    closed: int
    closed_by: str
    seconds: float
    sides: list[Row]

    def rows(self) -> list[Row]:
        """Return the table."""
        return [
            ("tasks confirmed", self.confirmed, self.confirmed > 0),
            ("tasks confirmed a second", f"{self.confirmed / self.seconds:,.0f}", None),
            ("tasks run", self.processed, None),
            ("lost", self.lost_count, self.lost_count == 0),
            ("run more than once", self.again, None),
            (f"connections closed by {self.closed_by}", self.closed, self.closed > 0),
            *self.sides,
        ]

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return all(kept is not False for _, _, kept in self.rows())


def judged(name: str, start: dict[str, Any], end: dict[str, Any]) -> list[Row]:
    """Return the part of a table on one process, from what it told at its start and its end."""
    sizes: list[float] = end["memory"]
    warm = statistics.median(_part(sizes, _WARM, 2 * _WARM))
    last = statistics.median(_part(sizes, 0.9, 1.0))
    times, more = _GROWTH
    before, after = Vitals(**start), Vitals(**end["vitals"])
    kept = not after.grown_from(before)
    return [
        (f"{name}: MB after the warm-up, at the end", f"{warm:.1f}, {last:.1f}", None),
        (f"{name}: MB it grew by", f"{last - warm:.1f}", last <= times * warm + more),
        (
            f"{name}: asyncio tasks at rest, start and end",
            f"{before.tasks}, {after.tasks}",
            kept,
        ),
        (
            f"{name}: futures at rest, start and end",
            f"{before.futures}, {after.futures}",
            kept,
        ),
        *((f"  {what}", count, None) for what, count in sorted(end["heard"].items())),
    ]


def _part(sizes: list[float], begin: float, end: float) -> list[float]:
    return sizes[int(len(sizes) * begin) : max(1, int(len(sizes) * end))] or sizes
