"""Keeps apart the tasks that may be killing their workers.

A task that ends its process takes every task beside it along, and the broker counts one more
delivery without an outcome for each of them. Left together they would come back together until
all of them are taken for killers. So from half of the crash limit on, a task runs alone in its
instance: nothing else begins there, what was delivered goes back to the broker first, and what
runs is let finish. What was counted at all begins a moment late, so that suspects which come back
along with it are met first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster_kit.event_queue.run import crashes

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.clock import Clock
    from cluster_kit.event_queue.run import Run
    from cluster_kit.ports import Received

log = logging.getLogger(__name__)

SETTLING = 0.2
"""Seconds a task that was counted waits for those that are delivered along with it."""

LONGEST_WAIT = 30.0
"""Seconds a suspect waits at most for what ran before it: that has not killed anybody so far."""

LOOK = 0.05
"""Seconds between looks whether it is alone."""


def is_suspect(received: Received, crash_limit: int) -> bool:
    """Whether a task may be what kills its workers, and is not yet to be buried for it."""
    return crash_limit // 2 < crashes(received) <= crash_limit


class Quarantine:
    """Lets in one suspect of an instance at a time, and nothing beside it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inside: Run | None = None
        self._in_hand: Callable[[], int] = lambda: 0

    def watch(self, in_hand: Callable[[], int]) -> None:
        """Ask `in_hand` how many deliveries the instance has not settled."""
        self._in_hand = in_hand

    @property
    def taken(self) -> bool:
        """Whether a suspect is inside, and nothing else may begin."""
        return self._inside is not None

    def enter(self, run: Run) -> None:
        """Let `run` in; nobody may be inside."""
        self._inside = run

    def leave(self, run: Run) -> None:
        """Let `run` out, if it is inside."""
        if self._inside is run:
            self._inside = None

    async def admit(self, run: Run) -> bool:
        """Wait until a task that was counted may begin; False when it must not beside a suspect."""
        await self._clock.sleep(SETTLING)
        if self._inside is not run:
            return not self.taken
        last = self._clock.monotonic() + LONGEST_WAIT
        while self._in_hand() > 1 and not run.signal.aborted and self._clock.monotonic() < last:
            await self._clock.sleep(LOOK)
        envelope, times = run.envelope, crashes(run.received) + 1
        text = "task %s on %s is delivered for the %d. time without an outcome: it runs alone here"
        log.warning(text, envelope.id, envelope.queue.channel, times)
        return True
