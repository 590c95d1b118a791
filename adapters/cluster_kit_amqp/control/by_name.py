"""What is done for one name at a time."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class LocksByName:
    """A lock for each name, which lasts while somebody is at it: names come without end."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._locks)

    def of(self, name: str) -> asyncio.Lock:
        """Return the lock of a name."""
        return self._locks.setdefault(name, asyncio.Lock())
