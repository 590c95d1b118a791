"""What is to happen later, and the one task that waits for it."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from cluster_kit.clock import Clock
    from cluster_kit.ports import TaskSpawner

T = TypeVar("T")

_NOISE = 1e-6
"""Seconds. Sums of wall times are only that exact; what is due within them is due."""

_LONGEST_SLEEP = 60.0
"""Seconds after which the timer looks again, because the wall clock may have been set."""

_SPARE_ENTRIES = 64
"""Cancelled entries a heap may keep before it is rebuilt."""


class Schedule(Generic[T]):
    """Items in the order of their time; equal times in the order of adding."""

    def __init__(self) -> None:
        self._items: dict[int, tuple[float, T]] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: int, when: float, item: T) -> None:
        """Plan `item` for `when`. Keys are unique; lower ones go first at equal times."""
        self._items[key] = (when, item)
        heapq.heappush(self._heap, (when, key))

    def discard(self, key: int) -> None:
        """Forget an item; an unknown key is no error."""
        if self._items.pop(key, None) is not None and self._is_littered():
            self._heap = [(when, key) for key, (when, _) in self._items.items()]
            heapq.heapify(self._heap)

    def _is_littered(self) -> bool:
        return len(self._heap) > 2 * len(self._items) + _SPARE_ENTRIES

    def next(self) -> float | None:
        """Return the earliest time, or None when nothing is planned."""
        while self._heap:
            when, key = self._heap[0]
            if key in self._items and self._items[key][0] == when:
                return when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Iterator[T]:
        """Take out what is due, in order."""
        while (when := self.next()) is not None and when <= now + _NOISE:
            _, key = heapq.heappop(self._heap)
            yield self._items.pop(key)[1]


class Timer:
    """Calls `run_due` when the next thing is due. One task, started by one of the instances.

    Args:
        clock: of the hub.
        seconds_left: returns the seconds until something is due, None when nothing is planned.
        run_due: does what is due.
    """

    def __init__(
        self, clock: Clock, seconds_left: Callable[[], float | None], run_due: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._seconds_left = seconds_left
        self._run_due = run_due
        self._spawners: list[TaskSpawner] = []
        self._task: asyncio.Task[None] | None = None
        self._keeper: TaskSpawner | None = None
        self._wakes_at = 0.0  # monotonic seconds

    def join(self, spawner: TaskSpawner) -> None:
        """Let `spawner` start the task from now on."""
        self._spawners.append(spawner)
        self.arm()

    def leave(self, spawner: TaskSpawner) -> None:
        """Stop using `spawner`; another one takes over."""
        self._spawners.remove(spawner)
        if self._keeper is spawner:
            self._cancel()
            self.arm()

    def arm(self) -> None:
        """See to it that the task wakes in time. Called after every change of the plan."""
        left = self._seconds_left()
        if left is None or not self._spawners:
            return
        left = min(max(left, 0.0), _LONGEST_SLEEP)
        wakes_at = self._clock.monotonic() + left
        if self._task is not None and self._wakes_at <= wakes_at:
            return
        self._cancel()
        self._wakes_at = wakes_at
        self._keeper = self._spawners[0]
        self._task = self._keeper.spawn(self._sleep(left), name="memory hub timer")
        self._task.add_done_callback(self._ended)

    async def _sleep(self, left: float) -> None:
        await self._clock.sleep(left)
        self._task = self._keeper = None
        self._run_due()
        self.arm()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task or self._keeper is None:
            return
        # Cancelled by its supervisor: that instance is going down, the others still need the time.
        self._task, gone, self._keeper = None, self._keeper, None
        if len(self._spawners) > 1:
            self._spawners.remove(gone)
            self._spawners.append(gone)
            self.arm()

    def _cancel(self) -> None:
        if self._task is not None:
            task, self._task, self._keeper = self._task, None, None
            task.cancel()
