"""One byte for each numbered task, in a file that several processes see.

A soak has too many tasks to write lines about them, or to remember them where memory is watched.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_HEAD = 16
_MOST = 255


class Marks:
    """Counts, for every number below `capacity`, how often it was marked (up to 255).

    One process marks, any may look.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        with path.open("a+b") as file:
            if path.stat().st_size == 0:
                file.truncate(_HEAD + capacity)  # sparse: it takes the room of what is marked
            self._bytes = mmap.mmap(file.fileno(), 0)
        self._head = memoryview(self._bytes)[:_HEAD].cast("Q")

    def mark(self, number: int) -> None:
        """Mark a number once more."""
        at = _HEAD + number
        before = self._bytes[at]
        self._bytes[at] = min(before + 1, _MOST)
        self._head[1 if before else 0] += 1

    @property
    def different(self) -> int:
        """How many numbers are marked."""
        return self._head[0]

    @property
    def again(self) -> int:
        """How often a number was marked that was marked already."""
        return self._head[1]

    def missing(self, other: Marks) -> list[int]:
        """Return the numbers that are marked here and not in `other`."""
        if self._bytes[_HEAD:].translate(_SEEN) == other._bytes[_HEAD:].translate(_SEEN):
            return []
        pairs = zip(self._bytes[_HEAD:], other._bytes[_HEAD:], strict=True)
        return [number for number, (here, there) in enumerate(pairs) if here and not there]


_SEEN = bytes([0] + [1] * _MOST)
