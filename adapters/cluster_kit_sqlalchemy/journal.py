"""What waits for the end of one transaction, and which savepoint each part of it is in."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count

Committed = Callable[[], None]

_NUMBERS = count()  # of calls; what order they were noted in, whichever journal has them


class Journal:
    """Calls in their order, with marks where savepoints began.

    A savepoint that began before the first call was noted has no mark: all calls are inside it.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[int, Committed]] = []
        self._marks: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def note(self, call: Committed) -> None:
        """Add a call."""
        self._calls.append((next(_NUMBERS), call))

    def mark(self, savepoint: Hashable) -> None:
        """Note that `savepoint` begins here."""
        self._marks[savepoint] = len(self._calls)

    def release(self, savepoint: Hashable) -> None:
        """Keep what was noted since `savepoint` began, which ends."""
        self._marks.pop(savepoint, None)

    def cut(self, savepoint: Hashable) -> None:
        """Drop what was noted since `savepoint` began, which ends."""
        del self._calls[self._marks.pop(savepoint, 0) :]

    def drop(self) -> None:
        """Forget everything."""
        self._calls.clear()
        self._marks.clear()

    def take(self) -> list[Committed]:
        """Forget everything, and return the calls in the order in which they were noted."""
        calls = sorted(self._calls, key=lambda numbered: numbered[0])
        self.drop()
        return [call for _, call in calls]

    def give(self, other: Journal) -> None:
        """Forget everything, and leave the calls to another journal."""
        other._calls += self._calls
        self.drop()
