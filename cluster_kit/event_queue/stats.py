"""Counters of an instance's event queue."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """What this instance did on one channel since it started; `running` is now."""

    published: int = 0
    started: int = 0
    done: int = 0
    retried: int = 0
    snoozed: int = 0
    dead: int = 0
    given_back: int = 0
    stuck: int = 0
    running: int = 0


_COUNTED = ("published", "started", "done", "retried", "snoozed", "dead", "given_back", "stuck")


class Counters:
    """Counts the event queue's telemetry by channel."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def count(self, event: str, channel: str) -> None:
        """Count one event such as ``task.done``."""
        self._counts[channel][event.removeprefix("task.")] += 1

    def snapshot(self, running: Mapping[str, int]) -> dict[str, ChannelStats]:
        """Return the counters of every channel seen so far."""
        return {
            channel: ChannelStats(
                **{name: self._counts[channel][name] for name in _COUNTED},
                running=running.get(channel, 0),
            )
            for channel in sorted({*self._counts, *running})
        }
