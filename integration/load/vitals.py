"""What a process that must not grow has: memory, asyncio tasks and futures."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
from pathlib import Path

_SETTLE_SECONDS = 15.0
_MORE_TASKS, _MORE_FUTURES = 3, 12
"""At rest a process may have so many more than at the start; a leak has some for each loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Of a process at rest.

    Attributes:
        tasks: of its event loop.
        futures: all that exist, tasks among them.
    """

    tasks: int
    futures: int

    def grown_from(self, start: Vitals) -> bool:
        """Whether there is more than chance explains."""
        return (
            self.tasks > start.tasks + _MORE_TASKS or self.futures > start.futures + _MORE_FUTURES
        )


def memory(process: int | str = "self") -> float:
    """Return the memory that is a process's own, MB; without files that it maps."""
    status = Path(f"/proc/{process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def vitals() -> Vitals:
    """Count."""
    gc.collect()
    futures = sum(isinstance(found, asyncio.Future) for found in gc.get_objects())
    return Vitals(tasks=len(asyncio.all_tasks()), futures=futures)


async def settled(at_start: Vitals) -> Vitals:
    """Wait a while until there is no more than at the start; return what there is then."""
    end = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = vitals()
        if not found.grown_from(at_start) or time.monotonic() > end:
            return found
        await asyncio.sleep(0.5)


class Samples:
    """Memory, second by second."""

    def __init__(self) -> None:
        self.memory: list[float] = []

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            self.memory.append(memory())
            await asyncio.sleep(1.0)
