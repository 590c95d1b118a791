"""What one cache holds in this process: bounded, expiring when looked at, refusing stale fills."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.cache.values import Copier

ENTRY_BYTES = 600
"""About what an entry takes besides its value and key."""

TAG_BYTES = 150
"""About what each of its tags takes besides the name."""

TAGGED_BYTES = 400
"""About what a tag takes besides, however many entries have it."""

MOST_MARKS = 20_000
"""Invalidated tags that are remembered for what is being fetched or loaded."""


@dataclass(slots=True, eq=False)
class Entry:
    """A value held here. Times are readings of the monotonic clock.

    Attributes:
        value: as kept.
        copier: makes what is handed out; None where that is `value` itself.
        until: before it the value is handed out as it is.
        eager: from then on whoever asks has it loaded anew besides.
        expires: when its ttl ends; later than `until` where a store has it for longer.
        usable: until when it may stand in for a value that cannot be loaded.
        born: when the question was asked to which it is the answer, or when it was given.
        tags: that invalidate it.
        size: about how many bytes the value takes.
        used: whether it was handed out since it was last spared.
        stands: until when it stands in for a value that could not be loaded, before the next try.
    """

    value: object
    copier: Copier | None
    until: float
    eager: float
    expires: float
    usable: float
    born: float
    tags: frozenset[str]
    size: int
    used: bool = False
    stands: float = 0.0

    def copy(self) -> object:
        """Return the value for a caller."""
        return self.value if self.copier is None else self.copier()


@dataclass(slots=True, eq=False)
class Ticket:
    """The right to put the value of a key here, lost when the key is invalidated meanwhile.

    Attributes:
        key: see there.
        opened: so many invalidations of tags there were before.
        since: when that was, by the monotonic clock.
        void: whether the key was invalidated.
    """

    key: str
    opened: int
    since: float
    void: bool = False


class Local:
    """Entries by key.

    At most `most` entries, and `most_bytes` of them, are held; beyond, those go that were not
    used since the hand came by last (the clock algorithm). An entry that is over is found when it
    is asked for or the hand comes by.

    Attributes:
        keeps: whether it ever holds anything.
        entries: for the quickest look-up; whoever finds one there sees to its times.
        bytes: what is held takes about.

    Args:
        most: entries; 0 holds nothing.
        most_bytes: of all together.
        monotonic: the time.
    """

    def __init__(self, most: int, most_bytes: int, monotonic: Callable[[], float]) -> None:
        self.keeps: bool = most > 0
        self._most = most
        self._most_bytes = most_bytes
        self._monotonic = monotonic
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.bytes: int = 0
        self._tagged: dict[str, set[str]] = {}
        self._tickets: dict[str, set[Ticket]] = {}
        self._marks: dict[str, int] = {}  # tags, with the number of their last invalidation
        self._marked = 0  # so many invalidations of tags there were
        self._forgotten = 0  # which tags the first so many named is not known any more

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key as long as it may be of any use."""
        entry = self.entries.get(key)
        if entry is not None and entry.usable <= self._monotonic():
            self._take(key)
            return None
        return entry

    def discard(self, key: str) -> None:
        """Hold a key no more; what is being loaded for it may still be held."""
        self._take(key)

    def put(self, key: str, entry: Entry) -> None:
        """Hold an entry, in the place of the one there was."""
        self._take(key)
        cost = _cost(key, entry)
        if not self.keeps or cost > self._most_bytes:
            return
        self.entries[key] = entry
        self.bytes += cost
        for tag in entry.tags:
            if tag not in self._tagged:
                self._tagged[tag] = set()
                self.bytes += TAGGED_BYTES
            self._tagged[tag].add(key)
        while len(self.entries) > self._most or self.bytes > self._most_bytes:
            self._evict()

    def retire(self, ticket: Ticket) -> None:
        """Let what was held when a ticket was opened, or came by it, stand in for nothing more."""
        entry = self.entries.get(ticket.key)
        if entry is not None and entry.born <= ticket.since:
            entry.usable = min(entry.usable, entry.until)
            entry.stands = 0.0

    # --- invalidation ----------------------------------------------------------------------------

    def open(self, key: str) -> Ticket:
        """Begin to fetch or load the value of a key."""
        ticket = Ticket(key, self._marked, self._monotonic())
        self._tickets.setdefault(key, set()).add(ticket)
        return ticket

    def close(self, ticket: Ticket) -> None:
        """End it."""
        tickets = self._tickets.get(ticket.key)
        if tickets is not None:
            tickets.discard(ticket)
            if not tickets:
                del self._tickets[ticket.key]

    def redeem(self, ticket: Ticket, entry: Entry) -> bool:
        """Put an entry, unless it was invalidated since the ticket was opened."""
        if not self.stands(ticket, entry.tags):
            return False
        self.put(ticket.key, entry)
        return True

    def stands(self, ticket: Ticket, tags: Iterable[str]) -> bool:
        """Whether neither its key nor any of `tags` was invalidated since it was opened."""
        last = (self._marks.get(tag, self._forgotten) for tag in tags)
        return not ticket.void and all(number <= ticket.opened for number in last)

    def drop(self, keys: Iterable[str]) -> int:
        """Hold these keys no more, nor what is being fetched of them; return how many were held."""
        dropped = 0
        for key in keys:
            dropped += self._take(key) is not None
            for ticket in self._tickets.get(key, ()):
                ticket.void = True
        return dropped

    def drop_tags(self, tags: Iterable[str]) -> None:
        """Hold nothing with any of these tags any more."""
        self._marked += 1
        for tag in tags:
            for key in tuple(self._tagged.get(tag, ())):
                self._take(key)
            self._marks[tag] = self._marked
        if len(self._marks) > MOST_MARKS:
            self._marks.clear()
            self._forgotten = self._marked

    def clear(self) -> None:
        """Hold nothing."""
        self.entries.clear()
        self._tagged.clear()
        self.bytes = 0
        for tickets in self._tickets.values():
            for ticket in tickets:
                ticket.void = True

    def fresh(self) -> Mapping[str, Entry]:
        """Return what has not expired."""
        now = self._monotonic()
        entries = self.entries.items()
        return {key: entry for key, entry in entries if entry.until > now}

    def _take(self, key: str) -> Entry | None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= _cost(key, entry)
            for tag in entry.tags:
                keys = self._tagged[tag]
                keys.discard(key)
                if not keys:
                    del self._tagged[tag]
                    self.bytes -= TAGGED_BYTES
        return entry

    def _evict(self) -> None:
        """Let one entry go: the first that is over or was not used since it was last spared."""
        now = self._monotonic()
        while True:
            key = next(iter(self.entries))
            entry = self.entries[key]
            if not entry.used or entry.usable <= now:
                self._take(key)
                return
            entry.used = False
            self.entries.move_to_end(key)


def _cost(key: str, entry: Entry) -> int:
    tags = sum(map(len, entry.tags)) + TAG_BYTES * len(entry.tags)
    return entry.size + ENTRY_BYTES + len(key) + tags


def moment(now: float, seconds: float | None) -> float:
    """Return when so many seconds from `now` are over; never, for None."""
    return inf if seconds is None else now + seconds
