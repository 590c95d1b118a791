"""What waits for the end of one transaction, and which savepoint each part of it is in."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cluster_kit.ports import Waiting

_NUMBERS = count()  # what order all was noted in, whichever journal has it


class Journal:
    """What waits, in its order, with marks where savepoints began.

    A savepoint that began before anything was noted has no mark: everything is inside it.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[int, Waiting]] = []
        self._marks: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, waiting: Waiting) -> None:
        """Add what waits."""
        self._noted.append((next(_NUMBERS), waiting))

    def mark(self, savepoint: Hashable) -> None:
        """Note that `savepoint` begins here."""
        self._marks[savepoint] = len(self._noted)

    def release(self, savepoint: Hashable) -> None:
        """Keep what was noted since `savepoint` began, which ends."""
        self._marks.pop(savepoint, None)

    def cut(self, savepoint: Hashable) -> None:
        """Drop what was noted since `savepoint` began, which ends."""
        del self._noted[self._marks.pop(savepoint, 0) :]

    def drop(self) -> None:
        """Forget everything."""
        self._noted.clear()
        self._marks.clear()

    def give(self, other: Journal) -> None:
        """Forget everything, and leave it to another journal."""
        other._noted += self._noted
        self.drop()

    def committed(self) -> None:
        """Tell everything, in the order in which it was noted, that it is committed."""
        for waiting in self._take():
            waiting.committed()

    def in_doubt(self, why: str) -> None:
        """Tell everything that nobody knows whether it is committed."""
        for waiting in self._take():
            waiting.in_doubt(why)

    def _take(self) -> list[Waiting]:
        noted = sorted(self._noted, key=lambda numbered: numbered[0])
        self.drop()
        return [waiting for _, waiting in noted]
