"""One queue as data: who waits in which order, who takes, what is dead. No time, no file."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName


@dataclass(slots=True, eq=False)
class Stored:
    """One stored copy of a task.

    Attributes:
        id: of the copy in this hub and its file.
        copy_id: what receivers know it by.
        position: place in line; it keeps its place when it comes back.
        redeliveries: deliveries that ended without an outcome.
        returned: it was delivered before, and came back either way.
    """

    id: int
    queue: WorkQueue
    envelope: Envelope
    copy_id: str
    position: int = 0
    redeliveries: int = 0
    returned: bool = False


@dataclass(slots=True, eq=False)
class Handout:
    """One delivery of a copy to a taker.

    Attributes:
        handed: the taker has seen it.
        live: neither settled nor taken back.
    """

    stored: Stored
    taker: Taker
    handed: bool = False
    live: bool = True


@dataclass(slots=True, eq=False)
class Taker:
    """A consumer as the hub sees it.

    Attributes:
        instance: whose it is.
        prefetch: most deliveries it may have unsettled.
        receive: is given each delivery.
        taking: not paused and not cut off.
    """

    queue: WorkQueue
    name: QueueName
    instance: object
    prefetch: int
    receive: Callable[[Handout], None]
    taking: bool = False
    unsettled: dict[int, Handout] = field(default_factory=dict[int, Handout])

    @property
    def has_room(self) -> bool:
        """Whether it may be given one more."""
        return len(self.unsettled) < self.prefetch


class WorkQueue:
    """The tasks of one queue that wait for a taker, its takers, and its dead letters.

    Attributes:
        names: by which it was addressed; an application's ``a.b`` and a shared ``a.b`` are one.
        dead: dead letters by id, oldest first.
        held: ids of dead letters that a reader has in hand.
    """

    def __init__(self) -> None:
        self.names: set[QueueName] = set()
        self.dead: dict[int, Stored] = {}
        self.held: set[int] = set()
        self._takers: deque[Taker] = deque()
        self._fresh: OrderedDict[int, Stored] = OrderedDict()
        # Everything that came back was taken before whatever is fresh now: it stands in front.
        self._returned: list[Stored] = []

    @property
    def ready(self) -> int:
        """How many wait for a taker."""
        return len(self._returned) + len(self._fresh)

    @property
    def instances(self) -> int:
        """How many instances are taking."""
        return len({taker.instance for taker in self._takers})

    def append(self, stored: Stored) -> None:
        """Put a new arrival at the end of the line."""
        self._fresh[stored.id] = stored

    def put_back(self, stored: Stored) -> None:
        """Put one that had been taken back to its old place in line."""
        insort(self._returned, stored, key=_position)

    def take(self) -> Stored | None:
        """Take the first in line."""
        if self._returned:
            return self._returned.pop(0)
        return self._fresh.popitem(last=False)[1] if self._fresh else None

    def discard(self, stored: Stored) -> None:
        """Take out one that waits, wherever it stands."""
        if self._fresh.pop(stored.id, None) is None:
            del self._returned[bisect_left(self._returned, stored.position, key=_position)]

    def clear(self) -> list[Stored]:
        """Take out all that wait, and return them in order."""
        waiting = [*self._returned, *self._fresh.values()]
        self._returned.clear()
        self._fresh.clear()
        return waiting

    def add_taker(self, taker: Taker) -> None:
        """Let `taker` have its share from now on."""
        self._takers.append(taker)

    def remove_taker(self, taker: Taker) -> None:
        """Give nothing more to `taker`."""
        self._takers.remove(taker)

    def next_taker(self) -> Taker | None:
        """Return the taker whose turn it is among those with room, and move it to the end."""
        for _ in range(len(self._takers)):
            taker = self._takers[0]
            self._takers.rotate(-1)
            if taker.has_room:
                return taker
        return None


def _position(stored: Stored) -> int:
    return stored.position
