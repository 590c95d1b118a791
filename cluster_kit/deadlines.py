"""Many deadlines on one timer of the event loop.

Nearly every deadline of a message passes unused; a timer for each costs more than the rest of its
bookkeeping.
"""

from __future__ import annotations

import asyncio
import math
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Expiring(Protocol):
    """Something that has a deadline. `at` is its time on the event loop's clock."""

    at: float

    def expire(self) -> None:
        """The deadline has passed. Must not raise."""
        ...


_BLOCKED = 0.5  # seconds; a timer that is so late was held up by a blocked event loop
_READING = 0.1  # seconds for what came meanwhile


class Deadlines:
    """Tells each of its items once when its deadline has passed. On the event loop only.

    Attributes:
        end: forgets the deadline of an item; idempotent.
    """

    def __init__(self) -> None:
        self._open: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        self.end: Callable[[Expiring], None] = self._open.discard

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop they belong to: the one that runs at the first use."""
        return asyncio.get_running_loop()

    def start(self, item: Expiring, seconds: float) -> None:
        """Call `item.expire()` in so many seconds, unless `end` comes first."""
        item.at = at = self.loop.time() + seconds
        self._open.add(item)
        if at < self._next:
            self._arm(at)

    def close(self) -> None:
        """Forget all of them."""
        self._open.clear()
        self._next = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = at
        self._timer = self.loop.call_at(at, self._due)

    def _due(self) -> None:
        now = self.loop.time()
        if now - self._next > _BLOCKED:  # the answers may lie in the sockets, not read yet
            self._arm(now + _READING)
            return
        now = max(self._next, now)  # a loop may be early by a tick
        self._next = math.inf
        for item in [item for item in self._open if item.at <= now]:
            self._open.discard(item)
            item.expire()
        earliest = min((item.at for item in self._open), default=math.inf)
        if earliest < self._next:
            self._arm(earliest)


class Within:
    """Bounds a block of the current task, as `asyncio.timeout` does.

    To be used as ``with Within(deadlines, 10):``.

    Args:
        deadlines: has the timer.
        seconds: the block may take.

    Raises:
        TimeoutError: when the block is left, if it was cut short.
    """

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_seconds", "_task", "at")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self.at = math.inf
        self._deadlines, self._seconds = deadlines, seconds
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> None:
        task = asyncio.current_task(self._deadlines.loop)
        if task is None:
            raise RuntimeError("a block can be bounded inside a task only")
        self._task, self._cancelling = task, task.cancelling()
        self._deadlines.start(self, self._seconds)

    def expire(self) -> None:
        """Cut the block short."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.end(self)
        if not self._expired or self._task is None:
            return
        # Somebody else may have cancelled the task meanwhile; that goes on its way.
        if self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
