"""Keeps apart the tasks that may be killing their workers.

A task that ends its process takes every task beside it along, and the broker counts one more
delivery without an outcome for each of them. Left together they would come back together until
all of them are taken for killers. So from half of the crash limit on, an instance runs one such
task at a time, and has put the others back into the broker, under their count, before it does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.event_queue.run import crashes

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.event_queue.run import Run
    from cluster_kit.ports import Received

SETTLING = 0.2
"""Seconds a suspect waits for those that are delivered along with it."""

LONGEST_SETTLING = 2.0
"""Seconds it waits at most until they are stored."""

POSTPONED = 1.0
"""Seconds a suspect stays in the broker while another one runs."""


def is_suspect(received: Received, crash_limit: int) -> bool:
    """Whether a task may be what kills its workers, and is not yet to be buried for it."""
    return crash_limit // 2 < crashes(received) <= crash_limit


class Quarantine:
    """Lets in one suspect of an instance at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inside: Run | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def taken(self) -> bool:
        """Whether a suspect is inside."""
        return self._inside is not None

    def enter(self, run: Run) -> None:
        """Let `run` in; nobody may be inside."""
        self._inside = run

    def leave(self, run: Run) -> None:
        """Let `run` out, if it is inside."""
        if self._inside is run:
            self._inside = None

    def postponing(self, chore: asyncio.Task[None]) -> None:
        """Note that another suspect is being put back into the broker."""
        self._leaving.add(chore)
        chore.add_done_callback(self._leaving.discard)

    async def alone(self) -> None:
        """Wait until what was delivered along with the suspect inside is out of danger."""
        await self._clock.sleep(SETTLING)
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=LONGEST_SETTLING)
