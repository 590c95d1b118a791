"""Numbers of messages as their publisher gives them."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.names import new_id

if TYPE_CHECKING:
    from cluster_kit.clock import Clock

MAX_CHANNELS = 10_000
"""Channels a publisher numbers at a time. One that is forgotten begins a new epoch."""

_NONCE = 8


class Number(NamedTuple):
    """What a publisher gives a message; the fields are those of `Broadcast`."""

    epoch: str
    seq: int
    after: float


@dataclass(slots=True)
class _Counter:
    epoch: str
    last: int = 0
    given_at: float = 0.0
    returned: set[int] = field(default_factory=set[int])


class Numbering:
    """Numbers what one process publishes, by channel, from 1 and without holes.

    An epoch names the process before the dot: another one that has its instance id, as its
    successor or by mistake, has other epochs.

    Args:
        instance_id: of this instance.
        clock: tells how long ago the number before was given.
        limit: of channels.

    Attributes:
        instance_id: as given.
        incarnation: what all epochs of this process begin with.
    """

    def __init__(self, instance_id: str, clock: Clock, limit: int = MAX_CHANNELS) -> None:
        self.instance_id: str = instance_id
        self.incarnation: str = new_id()[:_NONCE]
        self._clock = clock
        self._limit = limit
        self._generations = itertools.count(1)
        self._counters: OrderedDict[str, _Counter] = OrderedDict()

    def next(self, channel: str) -> Number:
        """Return the number of the next message."""
        counter = self._counters.pop(channel, None)
        if counter is None:
            counter = _Counter(f"{self.incarnation}.{next(self._generations)}")
        self._counters[channel] = counter
        if len(self._counters) > self._limit:
            self._counters.popitem(last=False)
        now = self._clock.monotonic()
        after = now - counter.given_at if counter.last else 0.0
        counter.last, counter.given_at = counter.last + 1, now
        return Number(counter.epoch, counter.last, after)

    def used(self, channel: str, number: Number) -> None:
        """A message was sent, or may have been: what was taken back before it stays a hole."""
        counter = self._counters.get(channel)
        if counter is not None and counter.returned and counter.epoch == number.epoch:
            counter.returned = {seq for seq in counter.returned if seq > number.seq}

    def give_back(self, channel: str, number: Number) -> None:
        """Take back the number of a message that certainly was not sent.

        It is used again unless a later one is under way; that one then looks like a gap to its
        receivers, who are told once more than needed.
        """
        counter = self._counters.get(channel)
        if counter is None or counter.epoch != number.epoch:
            return
        counter.returned.add(number.seq)
        while counter.last in counter.returned:
            counter.returned.discard(counter.last)
            counter.last -= 1


def incarnation_of(epoch: str) -> str:
    """Return the process that numbered a message."""
    return epoch.partition(".")[0]
