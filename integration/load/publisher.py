"""Publishes many tasks at a steady rate, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

from cluster_kit import Cluster
from cluster_kit.errors import TransportError
from integration.load.journal import Journal
from integration.load.worker import CHANNEL

LANES = 64
"""Publishes under way at a time."""


class Publisher:
    """Writes down when each publish began and how it ended.

    Args:
        cluster: publishes, and is running.
        journal: where it is written down.
        tasks: how many at least; it goes on until `finish`, so that no fault finds idle workers.
        rate: at most so many a second.
        payload: of every task.
    """

    def __init__(
        self,
        cluster: Cluster,
        journal: Journal,
        *,
        tasks: int,
        rate: float,
        payload: object,
    ) -> None:
        self._queue = cluster.event_queue
        self._journal = journal
        self._tasks = tasks
        self._rate = rate
        self._payload = payload
        self.begun = 0
        self._finish = asyncio.Event()

    def finish(self) -> None:
        """Publish no more than are still missing."""
        self._finish.set()

    async def run(self) -> None:
        """Publish; an error of one publish is written down and does not stop the others."""
        numbers = self._numbers()
        first = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as lanes:
            for lane in range(LANES):
                lanes.create_task(self._lane(numbers, first), name=f"lane {lane}")

    def _numbers(self) -> Iterator[int]:
        for number in itertools.count():
            if number >= self._tasks and self._finish.is_set():
                return
            yield number

    async def _lane(self, numbers: Iterator[int], first: float) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            await asyncio.sleep(first + number / self._rate - loop.time())
            await self._publish(f"task-{number}")

    async def _publish(self, task: str) -> None:
        self._journal.write("publishing", task)
        self.begun += 1
        try:
            await self._queue.publish(CHANNEL, self._payload, message_id=task)
        except TransportError as exc:
            self._journal.write("publish failed", task, f"{type(exc).__name__}: {exc}")
        else:
            self._journal.write("published", task)
