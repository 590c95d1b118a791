"""Counters of an instance's locks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LockStats:
    """What this instance did since it was made; `held` and `waiting` are now.

    Attributes:
        acquired: locks it was given.
        released: locks it gave back.
        refused: acquisitions that ended without the lock, whatever the reason.
        suspect: times that a renewal failed and the lock was still ours for a while.
        lost: locks that were no longer its own before they were given back.
        held: locks it has.
        waiting: acquisitions under way.
    """

    acquired: int = 0
    released: int = 0
    refused: int = 0
    suspect: int = 0
    lost: int = 0
    held: int = 0
    waiting: int = 0


class Counters:
    """Counts the telemetry of locks."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, event: str) -> None:
        """Count one event such as ``lock.acquired``."""
        self._counts[event.removeprefix("lock.")] += 1

    def snapshot(self, *, held: int, waiting: int) -> LockStats:
        """Return the counters with what is going on now."""
        counts = self._counts
        return LockStats(
            acquired=counts["acquired"],
            released=counts["released"],
            refused=counts["refused"],
            suspect=counts["suspect"],
            lost=counts["lost"],
            held=held,
            waiting=waiting,
        )
