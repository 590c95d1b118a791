"""Keeps apart the tasks that may be killing their workers.

A task that ends its process takes every task beside it along, and the broker counts one more
delivery without an outcome for each of them. Left together they would come back together until
all of them are taken for killers. So from half of the crash limit on, a task runs alone in its
instance: nothing else begins there, what was delivered goes back to the broker first, and what
runs is let finish, for a while. What was counted at all begins a moment late, so that suspects
which come back along with it are met first.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from cluster_kit.event_queue.run import Run, crashes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster_kit.clock import Clock
    from cluster_kit.ports import Received

log = logging.getLogger(__name__)

SETTLING = 0.2
"""Seconds a task that was counted waits for those that are delivered along with it."""

LONGEST_WAIT = 30.0
"""Seconds a suspect waits at most for what ran before it: that has not killed anybody so far."""

QUIET = 1.0
"""Seconds after the last task when the others have nothing to do, most likely."""

LOOK = 0.05
"""Seconds between looks whether it is alone."""


def is_suspect(received: Received, crash_limit: int) -> bool:
    """Whether a task may be what kills its workers, and is not yet to be buried for it."""
    return crash_limit // 2 < crashes(received) <= crash_limit


class Quarantine:
    """Lets in one suspect of an instance at a time, and nothing beside it.

    After each it stays shut to suspects for as long as that one held the instance, or until the
    others have nothing to do: so neither kind has to wait for all of the other.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inside: Run | None = None
        self._entered_at = self._opens_at = self._worked_at = -math.inf
        self._outwaited: list[object] = []
        self._in_hand: Callable[[], Iterable[object]] = lambda: ()
        self._on_left: Callable[[], None] = lambda: None

    def watch(self, in_hand: Callable[[], Iterable[object]], on_left: Callable[[], None]) -> None:
        """Ask `in_hand` what the instance has not settled; call `on_left` when others may begin."""
        self._in_hand, self._on_left = in_hand, on_left

    @property
    def taken(self) -> bool:
        """Whether a suspect is inside, and nothing else may begin."""
        return self._inside is not None

    @property
    def opens_in(self) -> float:
        """Seconds until a suspect may enter, as far as that is known; others need not wait."""
        now = self._clock.monotonic()
        if any(isinstance(each, Run) for each in self._in_hand()):
            return self._opens_at - now
        return min(self._opens_at, self._worked_at + QUIET) - now

    def bars(self, received: Received, crash_limit: int) -> bool:
        """Whether it is a suspect, and the turn of the others."""
        return is_suspect(received, crash_limit) and self.opens_in > 0

    def worked(self) -> None:
        """Note that a task has ended."""
        self._worked_at = self._clock.monotonic()

    def enter(self, run: Run) -> None:
        """Let `run` in; nobody may be inside."""
        self._inside, self._entered_at = run, self._clock.monotonic()
        envelope, times = run.envelope, crashes(run.received)
        text = "task %s on %s was delivered %d times without an outcome: it runs alone here"
        log.warning(text, envelope.id, envelope.queue.channel, times)

    def leave(self, run: Run) -> None:
        """Let `run` out, if it is inside."""
        if self._inside is run:
            self._inside, now = None, self._clock.monotonic()
            self._worked_at = now
            self._opens_at = now + max(now - self._entered_at, SETTLING)
            self._on_left()

    async def admit(self, run: Run) -> bool:
        """Wait until a task that was counted may begin; False when it must go back instead."""
        await self._clock.sleep(SETTLING)
        if self._inside is run:
            await self._alone(run)
        elif self.taken:
            return False
        return not run.withdrawn

    async def _alone(self, run: Run) -> None:
        """Wait for what began before, unless it stays for long: that has killed nobody so far."""
        last = self._clock.monotonic() + LONGEST_WAIT
        while (before := self._before(run)) and not run.withdrawn:
            if self._clock.monotonic() >= last:
                self._outwaited += before
                log.warning("task %s begins beside %d others", run.envelope.id, len(before))
            await self._clock.sleep(LOOK)

    def _before(self, run: Run) -> list[object]:
        """Return what else is in hand, but for what was waited for to no end already."""
        in_hand = list(self._in_hand())
        self._outwaited = [each for each in self._outwaited if each in in_hand]
        return [each for each in in_hand if each is not run and each not in self._outwaited]
