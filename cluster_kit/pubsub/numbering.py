"""Numbers of messages: given by publishers, checked by receivers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster_kit.names import new_id

if TYPE_CHECKING:
    from cluster_kit.broadcast import Broadcast

MAX_CHANNELS = 10_000
"""Channels a publisher numbers at a time. One that is forgotten begins a new epoch."""

MAX_LINES = 100_000
"""Publishers times channels a receiver follows at a time. One that is forgotten begins anew."""

REPEATED = -1
"""What `Follower.missing` says of a message that was there before."""


@dataclass(slots=True)
class _Counter:
    epoch: str = field(default_factory=lambda: new_id()[:8])
    last: int = 0
    returned: set[int] = field(default_factory=set[int])


class Numbering:
    """Numbers what an instance publishes, by channel, from 1 and without holes."""

    def __init__(self, limit: int = MAX_CHANNELS) -> None:
        self._limit = limit
        self._counters: OrderedDict[str, _Counter] = OrderedDict()

    def next(self, channel: str) -> tuple[str, int]:
        """Return epoch and number of the next message."""
        counter = self._counters.pop(channel, None) or _Counter()
        self._counters[channel] = counter
        if len(self._counters) > self._limit:
            self._counters.popitem(last=False)
        counter.last += 1
        return counter.epoch, counter.last

    def give_back(self, channel: str, epoch: str, seq: int) -> None:
        """Take back the number of a message that certainly was not sent.

        It is used again unless a later one is under way; that one then looks like a gap to its
        receivers, who are told once more than needed.
        """
        counter = self._counters.get(channel)
        if counter is None or counter.epoch != epoch:
            return
        counter.returned.add(seq)
        while counter.last in counter.returned:
            counter.returned.discard(counter.last)
            counter.last -= 1


@dataclass(slots=True)
class _Line:
    epoch: str
    last: int
    excused: bool = False


class Follower:
    """Follows the numbers of every publisher and channel that this instance receives."""

    def __init__(self, limit: int = MAX_LINES) -> None:
        self._limit = limit
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()

    def missing(self, message: Broadcast) -> int:
        """Note a message; return how many before it are missing, or `REPEATED`.

        The first of a publisher is taken as it is: this instance may have come later.
        """
        if not message.seq:
            return 0
        key = (message.sender or message.origin, message.channel)
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line(message.epoch, message.seq)
            if len(self._lines) > self._limit:
                self._lines.popitem(last=False)
            return 0
        self._lines.move_to_end(key)
        return self._advance(line, message)

    @staticmethod
    def _advance(line: _Line, message: Broadcast) -> int:
        if line.epoch != message.epoch:
            line.epoch, line.last = message.epoch, 0
        if message.seq <= line.last:
            return REPEATED
        missing = message.seq - line.last - 1
        line.last = message.seq
        excused, line.excused = line.excused, False
        return 0 if excused else missing

    def excuse(self, concerned: Callable[[str], bool]) -> None:
        """Take the next hole in each channel concerned as known: it was told already."""
        for (_, channel), line in self._lines.items():
            line.excused = line.excused or concerned(channel)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget the channels that are not received any more."""
        for key in [key for key in self._lines if not wanted(key[1])]:
            del self._lines[key]
