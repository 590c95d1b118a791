"""A body of code that must end when its lock is lost."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


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
    """Ties the task that runs now to a lock, or to several: the first that is lost cancels it.

    Works like `asyncio.timeout`: its own cancellation is taken back at the end of the body, and
    one that came from elsewhere always wins.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lock is held by a task, and none is running")
        self.task = task
        self._before = task.cancelling()
        self._cancelled = False
        self._taken_back = False
        self._soon: asyncio.Handle | None = None

    def cut(self) -> None:
        """Cancel the body: the lock is lost."""
        if self.task is not asyncio.current_task():
            self._cancel()
        elif self._soon is None:  # of several locks the first is enough, and `undo` knows of one
            # It has just asked, and learns it by an exception or from the answer.
            self._soon = asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self.task.cancel()

    def undo(self) -> bool:
        """End it; True when the body was cancelled by this bond and by nobody else."""
        if self._soon is not None:
            self._soon.cancel()
        if self._cancelled and not self._taken_back:
            self._taken_back = True
            self.task.uncancel()
        # Of several locks each asks: since the one before, somebody else may have cancelled it.
        return self._cancelled and self.task.cancelling() <= self._before
