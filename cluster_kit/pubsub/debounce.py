"""Messages that wait until no equal one has come for a while."""

from __future__ import annotations

import heapq
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cluster_kit.broadcast import Broadcast
    from cluster_kit.clock import Clock
    from cluster_kit.supervisor import Supervisor

Key = tuple[str, bytes | str]
"""Channel and payload."""


def payload_key(message: Broadcast) -> Key:
    """Return what is equal for equal payloads of one channel, however they were encoded."""
    try:
        return message.channel, json.dumps(json.loads(message.body), sort_keys=True)
    except (ValueError, RecursionError):  # its handler will hear of it
        return message.channel, message.body


@dataclass(slots=True)
class _Held:
    message: Broadcast
    first: float
    due: float


class Debouncer:
    """Holds messages back; of equal ones the last is let go, once they have ceased to come.

    Args:
        clock: tells the time.
        supervisor: starts the one task that waits.
        let_go: is given what is due, in order.
        name: of the task.
    """

    def __init__(
        self,
        clock: Clock,
        supervisor: Supervisor,
        let_go: Callable[[Broadcast], None],
        *,
        name: str,
    ) -> None:
        self._clock = clock
        self._supervisor = supervisor
        self._let_go = let_go
        self._name = name
        self._held: dict[Key, _Held] = {}
        self._heap: list[tuple[float, int, Key]] = []  # one entry for each key, never too late
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._wakes_at = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, key: Key) -> bool:
        """Whether an equal message is held."""
        return key in self._held

    def hold(self, key: Key, message: Broadcast, wait: float, max_wait: float | None) -> None:
        """Hold `message` instead of an equal one, for `wait` seconds from now.

        It goes `max_wait` seconds after the first of its equals at the latest.
        """
        now = self._clock.monotonic()
        held = self._held.get(key)
        first = now if held is None else held.first
        due = now + wait if max_wait is None else min(now + wait, first + max_wait)
        self._held[key] = _Held(message, first, due)
        if held is None or due < held.due:
            heapq.heappush(self._heap, (due, next(self._numbers), key))
            self._arm(due)

    def cancel(self) -> int:
        """Let nothing go any more; return how many messages were held."""
        left = len(self._held)
        self._held.clear()
        self._heap.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        return left

    def _arm(self, due: float) -> None:
        if self._task is not None and self._wakes_at <= due:
            return
        if self._task is not None:
            self._task.cancel()
        self._wakes_at = due
        self._task = self._supervisor.spawn(self._run(), name=self._name)

    async def _run(self) -> None:
        while self._heap:
            self._wakes_at = self._heap[0][0]
            await self._clock.sleep(self._wakes_at - self._clock.monotonic())
            self._release(self._clock.monotonic())
        self._task = None

    def _release(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, number, key = heapq.heappop(self._heap)
            held = self._held.get(key)
            if held is None:
                continue  # let go by an earlier entry
            if held.due > now:
                heapq.heappush(self._heap, (held.due, number, key))
            else:
                del self._held[key]
                self._let_go(held.message)
