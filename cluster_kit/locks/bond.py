"""A body of code that must end when its lock is lost."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Tie(Protocol):
    """Who is inside of a lock. `task` is the one that runs there, None in a thread."""

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """See above."""
        ...

    def cut(self) -> None:
        """Cancel the body: the lock is lost."""
        ...

    def undo(self) -> bool:
        """End it; True when the body was cancelled by this tie and by nobody else."""
        ...


class Anchor:
    """Ties a thread to a lock: nothing can cancel it."""

    task = None

    def cut(self) -> None:
        """Leave it running."""

    def undo(self) -> bool:
        """End it."""
        return False


class Bond:
    """Ties the task that runs now to a lock.

    Works like `asyncio.timeout`: its own cancellation is taken back at the end of the body, and
    one that came from elsewhere always wins. A body inside of several locks is cancelled for one
    of them at a time, so that its clean-up can end; for the next when the bond of the first has.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lock is held by a task, and none is running")
        self.task = task
        self._before = task.cancelling()
        self._soon: asyncio.Handle | None = None

    def cut(self) -> None:
        """Cancel the body: the lock is lost."""
        if self.task is asyncio.current_task():
            # It has just asked, and learns it by an exception or from the answer.
            self._soon = asyncio.get_running_loop().call_soon(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        cut = _CUT.setdefault(self.task, [])
        cut.append(self)
        if cut == [self]:
            self.task.cancel()

    def undo(self) -> bool:
        """End it; True when the body was cancelled by this bond and by nobody else."""
        if self._soon is not None:
            self._soon.cancel()
        cut = _CUT.get(self.task, [])
        if self not in cut[:1]:
            cut[:] = [bond for bond in cut if bond is not self]
            return False
        for bond in _CUT.pop(self.task)[1:]:
            bond.cut()
        return self.task.uncancel() <= self._before


_CUT: WeakKeyDictionary[asyncio.Task[Any], list[Bond]] = WeakKeyDictionary()
"""Bonds whose body must end, by its task, which is being cancelled for the first of them."""
