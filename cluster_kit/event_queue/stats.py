"""Counters of an instance's event queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.telemetry import Telemetry


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


class StatsByChannel(dict[str, ChannelStats]):
    """Counters by channel. One this instance had nothing to do with is not in it."""

    def __missing__(self, channel: object) -> ChannelStats:
        hint = suggestion(str(channel), self)
        raise KeyError(f"this instance published and took nothing on {channel!r}{hint}")


_COUNTED = ("published", "started", "done", "retried", "snoozed", "dead", "given_back", "stuck")


class Counters:
    """Counts by channel what the event queue reports, and passes it on."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._counts: dict[object, dict[str, int]] = {}

    def report(self, event: str, /, **fields: object) -> None:
        """Count an event of a channel, such as ``task.done``, and tell whoever listens."""
        try:
            self._counts[fields["channel"]][event] += 1
        except KeyError:  # the first of its kind
            self._counts.setdefault(fields["channel"], {})[event] = 1
        if self._telemetry.heard:
            self._telemetry.emit(event, **fields)

    def snapshot(self, running: Mapping[str, int]) -> dict[str, ChannelStats]:
        """Return the counters of every channel seen so far."""
        return StatsByChannel(
            (
                channel,
                ChannelStats(
                    **{
                        each: self._counts.get(channel, {}).get(f"task.{each}", 0)
                        for each in _COUNTED
                    },
                    running=running.get(channel, 0),
                ),
            )
            for channel in sorted({*map(str, self._counts), *running})
        )
