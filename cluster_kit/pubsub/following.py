"""Numbers of messages as a receiver checks them: what is missing, what came before."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.broadcast import Broadcast

MAX_LINES = 100_000
"""Publishers times channels a receiver follows at a time. One that is forgotten begins anew."""

MAX_EPOCHS = 8
"""Epochs of one publisher and channel a receiver follows at a time."""

MAX_HOLES = 16
"""Holes in one epoch that are kept apart. Of more, the oldest two count as one, so that what came
between them is handled again rather than taken for a repeat."""

REPEATED = -1
"""What `Follower.missing` says of a message that was there before."""


class _Epoch:
    """How far the numbers of one epoch came, and which below that never did."""

    __slots__ = ("_holes", "_last")

    def __init__(self, first: int = 0) -> None:
        """Begin behind `first`; that there are none before it is unknown, not wrong."""
        self._last = first
        self._holes = [range(1, first)] if first > 1 else []  # in rising order

    def missing(self, seq: int) -> int:
        """Note a number; return how many right before it are missing, or `REPEATED`."""
        if seq == self._last + 1:
            self._last = seq
            return 0
        if seq > self._last:
            hole, self._last = range(self._last + 1, seq), seq
            self._keep([*self._holes, hole])
            return seq - hole.start
        for place, hole in enumerate(self._holes):
            if seq in hole:
                return self._fill(place, seq)
        return REPEATED

    def _fill(self, place: int, seq: int) -> int:
        """Take a number that was passed over: what did so had a wrong one, or overtook it."""
        hole = self._holes[place]
        parts = range(hole.start, seq), range(seq + 1, hole.stop)
        rest = [part for part in parts if part]
        self._keep([*self._holes[:place], *rest, *self._holes[place + 1 :]])
        return seq - hole.start

    def _keep(self, holes: list[range]) -> None:
        if len(holes) > MAX_HOLES:
            holes[:2] = [range(holes[0].start, holes[1].stop)]
        self._holes = holes


class Follower:
    """Follows the numbers of every publisher and channel that this instance receives.

    Each epoch is followed by itself, so neither a publisher's successor nor a second process
    under its name disturbs its numbers. One wrong number is told as a gap, and those that come
    after it are followed as if it had not been.
    """

    def __init__(self, limit: int = MAX_LINES) -> None:
        self._limit = limit
        self._lines: OrderedDict[tuple[str, str], OrderedDict[str, _Epoch]] = OrderedDict()

    def missing(self, message: Broadcast) -> int:
        """Note a message; return how many right before it are missing, or `REPEATED`.

        The first of a publisher is taken as it is: this instance may have come later.
        """
        if not message.seq:
            return 0
        key = (message.sender or message.origin, message.channel)
        epochs = self._lines.get(key)
        if epochs is None:
            self._lines[key] = OrderedDict({message.epoch: _Epoch(message.seq)})
            if len(self._lines) > self._limit:
                self._lines.popitem(last=False)
            return 0
        self._lines.move_to_end(key)
        epoch = epochs.get(message.epoch)
        if epoch is None:
            epoch = epochs[message.epoch] = _Epoch()
            if len(epochs) > MAX_EPOCHS:
                epochs.popitem(last=False)
        elif len(epochs) > 1:
            epochs.move_to_end(message.epoch)
        return epoch.missing(message.seq)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget the channels that are not received any more."""
        for key in [key for key in self._lines if not wanted(key[1])]:
            del self._lines[key]
