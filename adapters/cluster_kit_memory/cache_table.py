"""The values of a hub: bounded, expiring when looked at. It never waits."""

from __future__ import annotations

import threading
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.clock import Clock

MOST_VALUES = 100_000
"""Of one hub; beyond them go those not used for the longest time."""

MOST_BYTES = 64 * 2**20
"""Of the values of one hub, likewise; a value that is larger stays alone."""


class CacheTable:
    """All values of one hub. Every call is one atomic step, for other threads, too.

    Args:
        name: of the hub.
        clock: by which values expire.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.users = 0
        self._clock = clock
        self._guard = threading.RLock()
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0  # of their bodies

    def find(self, key: str) -> bytes | None:
        """Return a value that has not expired."""
        with self._guard:
            found = self._values.get(key)
            if found is None:
                return None
            if found[1] <= self._clock.monotonic():
                self._drop(key)
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: str, body: bytes, ttl: float | None) -> None:
        """Store a value."""
        with self._guard:
            end = inf if ttl is None else self._clock.monotonic() + ttl
            self._drop(key)
            self._values[key] = (body, end)
            self._bytes += len(body)
            while len(self._values) > MOST_VALUES or (
                self._bytes > MOST_BYTES and len(self._values) > 1
            ):
                self._drop(next(iter(self._values)))

    def take(self, key: str) -> bytes | None:
        """Remove a value and return it."""
        with self._guard:
            found = self.find(key)
            self._drop(key)
            return found

    def swap(self, key: str, body: bytes | None, expected: bytes | None, ttl: float | None) -> bool:
        """Store or remove a value if the present one begins as expected."""
        with self._guard:
            found = self.find(key)
            if found is None or expected is None:
                fits = found is expected
            else:
                fits = found.startswith(expected)
            if fits and body is not None:
                self.put(key, body, ttl)
            elif fits:
                self.take(key)
            return fits

    def renew(self, key: str, body: bytes, ttl: float | None, *, present: bool) -> bytes | None:
        """Store a value over one that is there, or where none is; return what is there then."""
        with self._guard:
            if (self.find(key) is not None) == present:
                self.put(key, body, ttl)
            return self.find(key)

    def add(self, key: str, amount: int, ttl: float | None) -> int:
        """Add to a counter; its ttl runs from the first addition on."""
        with self._guard:
            found = self.find(key)
            if found is None or not found.isdigit():
                self.put(key, b"%d" % amount, ttl)
                return amount
            count, end = int(found) + amount, self._values[key][1]
            body = b"%d" % count
            self._values[key] = (body, end)
            self._bytes += len(body) - len(found)
            return count

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of values that have not expired."""
        with self._guard:
            now, values = self._clock.monotonic(), self._values.items()
            return [key for key, (_, end) in values if key.startswith(prefix) and end > now]

    def _drop(self, key: str) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._bytes -= len(found[0])


class CacheTables:
    """Opens a table for its first user and drops it after the last. It keeps nothing in a file."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[str, CacheTable] = {}

    def enter(self, name: str, clock: Clock) -> CacheTable:
        """Return the table of a hub, with one more user."""
        with self._guard:
            found = self._open.get(name)
            if found is None:
                found = self._open[name] = CacheTable(name, clock)
            found.users += 1
            return found

    def tables(self) -> list[CacheTable]:
        """Return those in use."""
        return list(self._open.values())

    def leave(self, table: CacheTable) -> None:
        """Have one user less."""
        with self._guard:
            table.users -= 1
            if not table.users and self._open.get(table.name) is table:
                del self._open[table.name]


TABLES = CacheTables()
"""Of this process: a hub's name means the same to every instance in it."""
