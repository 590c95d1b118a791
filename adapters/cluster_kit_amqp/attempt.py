"""Work that goes on in a task of its own, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from cluster_kit.ports import TaskSpawner


class Attempt:
    """Does `work`. Whoever waits for the task raises the error, if there is one.

    Args:
        tasks: starts it.
        name: of the task.
        work: what to do.

    Attributes:
        task: never ends with an error.
        error: with which the work ended.
    """

    def __init__(self, tasks: TaskSpawner, name: str, work: Awaitable[None]) -> None:
        self.error: Exception | None = None
        self.task: asyncio.Task[None] = tasks.spawn(self._run(work), name=name)

    async def _run(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - raised by whoever waits for it
            self.error = exc
