"""The locks of a hub: who holds what, until when, and who is next. It never waits."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.ports import Claim, Quota
    from cluster_kit_memory.options import MemoryOptions


_FEW = 1000  # locks or quotas that may be kept for nothing
_MICROSECONDS = 1_000_000


class _Fences:
    """The fences of this process: what has seen them may outlive it, and every hub in it.

    So each is greater than the last one and no less than the wall clock in microseconds.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()  # hubs of several event loops
        self._last = 0

    def next(self, wall: float) -> int:
        with self._guard:
            self._last = max(self._last + 1, round(wall * _MICROSECONDS))
            return self._last


_FENCES = _Fences()


@dataclass(slots=True, eq=False)
class Held:
    """A lock that somebody has. `ends` is a reading of the table's clock."""

    claim: Claim
    fence: int
    ends: float


@dataclass(slots=True, eq=False)
class Place:
    """Where a claim stands in line. `woken` is set when it may be its turn."""

    claim: Claim
    woken: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Lock:
    """One lock that somebody has or wants."""

    held: Held | None = None
    line: list[Place] = field(default_factory=list[Place])


@dataclass(slots=True, eq=False)
class _Counted:
    """When each token of a quota was counted, the oldest first."""

    period: float
    at: dict[str, float] = field(default_factory=dict[str, float])

    def first_since(self, end: float) -> float:
        """Forget what was counted until `end`; return when the first of the others was."""
        while self.at:
            token, at = next(iter(self.at.items()))
            if at > end:
                return at
            del self.at[token]
        return end


class LockTable:
    """All locks of one hub, of one event loop.

    Waiters of all instances are served in the order of their first attempt. All locks of the
    process draw their fences from one counter, so that a lock nobody has or wants need not be kept.

    Args:
        name: of the hub.
        loop: on which it is used.
        clock: by which locks end.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self.name = name
        self.loop = loop
        self.users = 0
        self._clock = clock
        self._locks: dict[str, _Lock] = {}
        self._most_locks = _FEW
        self._counted: dict[str, _Counted] = {}  # by the name of the quota
        self._most_counted = _FEW

    def take(self, place: Place) -> Held | None:
        """Give the lock to a claim if it is free and nobody is before it; else let it in line."""
        claim = place.claim
        lock = self._locks.get(claim.name)
        if lock is None:
            self._sweep_locks()
            lock = self._locks[claim.name] = _Lock()
        held = self._current(lock)
        if held is not None and held.claim.token == claim.token:
            held.ends = self._clock.monotonic() + claim.ttl
            return held
        if held is not None or (lock.line and lock.line[0] is not place):
            if place not in lock.line:
                lock.line.append(place)
            return None
        if place in lock.line:
            lock.line.remove(place)
        lock.held = Held(
            claim, _FENCES.next(self._clock.wall()), self._clock.monotonic() + claim.ttl
        )
        self._wake(lock)  # who is first now: he waits for another end than before
        return lock.held

    def leave(self, place: Place) -> None:
        """Take a claim out of the line."""
        lock = self._locks.get(place.claim.name)
        if lock is not None and place in lock.line:
            lock.line.remove(place)
            self._settle(place.claim.name, lock)

    def renew(self, claim: Claim) -> bool:
        """Let a held lock live for another ttl; False when it is not this token's."""
        held = self.find(claim.name)
        if held is None or held.claim.token != claim.token:
            return False
        before, held.ends = held.ends, self._clock.monotonic() + claim.ttl
        if held.ends < before:
            self._wake(self._locks[claim.name])
        return True

    def free(self, claim: Claim) -> bool:
        """Free a lock; False when it is not this token's."""
        held = self.find(claim.name)
        if held is None or held.claim.token != claim.token:
            return False
        lock = self._locks[claim.name]
        lock.held = None
        self._settle(claim.name, lock)
        return True

    def find(self, name: str) -> Held | None:
        """Return who holds a lock now."""
        lock = self._locks.get(name)
        if lock is None:
            return None
        held = self._current(lock)
        if held is None:
            self._settle(name, lock)
        return held

    def seconds_left(self, name: str) -> float | None:
        """Return when a lock ends by itself, seconds from now; None when it is free."""
        held = self.find(name)
        return None if held is None else held.ends - self._clock.monotonic()

    def admit(self, quota: Quota, token: str) -> float:
        """Count a token if it is within the quota, and return 0; else the seconds to wait."""
        now = self._clock.monotonic()
        counted = self._counted.get(quota.name)
        if counted is None:
            self._sweep_quotas(now)
            counted = self._counted[quota.name] = _Counted(quota.period)
        first = counted.first_since(now - quota.period)
        if token in counted.at or len(counted.at) < quota.limit:
            counted.at.pop(token, None)  # who asks again did not hear that he was let in
            counted.at[token] = now
            return 0.0
        return first + quota.period - now

    def _sweep_locks(self) -> None:
        """Forget locks that ended and nobody wants, whenever there are twice as many as then."""
        if len(self._locks) < self._most_locks:
            return
        for name, lock in tuple(self._locks.items()):
            if self._current(lock) is None and not lock.line:
                del self._locks[name]
        self._most_locks = max(2 * len(self._locks), _FEW)

    def _sweep_quotas(self, now: float) -> None:
        """Forget quotas nobody used for a period, whenever there are twice as many as then."""
        if len(self._counted) < self._most_counted:
            return
        for name, counted in tuple(self._counted.items()):
            counted.first_since(now - counted.period)
            if not counted.at:
                del self._counted[name]
        self._most_counted = max(2 * len(self._counted), _FEW)

    def clear(self) -> None:
        """Forget everything, as a server that was restarted without its data."""
        self._counted.clear()
        for lock in self._locks.values():
            lock.held = None
            self._wake(lock)

    def _current(self, lock: _Lock) -> Held | None:
        if lock.held is not None and lock.held.ends <= self._clock.monotonic():
            lock.held = None
        return lock.held

    def _settle(self, name: str, lock: _Lock) -> None:
        """Wake who is next, or forget a lock that nobody has or wants."""
        self._wake(lock)
        if not lock.line and self._current(lock) is None:
            self._locks.pop(name, None)

    def _wake(self, lock: _Lock) -> None:
        if lock.line:
            lock.line[0].woken.set()


class LockTables:
    """Opens a table for its first user and drops it after the last.

    Like a hub it belongs to the event loop of its first user. It keeps nothing in a file.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[str, LockTable] = {}

    def enter(self, options: MemoryOptions, clock: Clock) -> LockTable:
        """Return the table of a hub, with one more user.

        Raises:
            ConnectError: it belongs to another event loop, which is still open.
        """
        loop = asyncio.get_running_loop()
        with self._guard:
            found = self._open.get(options.hub)
            if found is None or found.loop.is_closed():
                found = self._open[options.hub] = LockTable(options.hub, loop, clock)
            options.check_loop(found.loop)
            found.users += 1
        return found

    def leave(self, table: LockTable) -> None:
        """Have one user less."""
        with self._guard:
            table.users -= 1
            if not table.users and self._open.get(table.name) is table:
                del self._open[table.name]


TABLES = LockTables()
"""Of this process: a hub's name means the same to every instance in it."""
