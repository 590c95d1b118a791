"""Many tasks through one process, which has to stay as large as it was.

``python integration/load/steady.py --tasks 200000``

The process publishes tasks and runs them, 256 publishes and 64 runs at a time. After every tenth
of them it is looked at, with nothing in flight. From the second look on memory may grow by a few
MB, and there may be no more objects, asyncio tasks and futures than chance explains. The ids of
some ten thousand tasks are remembered, so with fewer than 100,000 it is still growing then.
Without ``--url`` it uses a RabbitMQ as the tests do. The exit code is 0 when all is as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from operator import le
from typing import Any

from rich.console import Console

from cluster_kit import Cluster
from cluster_kit.settings import Settings
from cluster_kit.testing.servers import NodeUnavailableError, start_rabbitmq
from cluster_kit.testing.waiting import eventually
from integration.load.report import Row, table_of
from integration.load.vitals import Vitals, memory, settled, vitals

_CHANNEL = "work"
_LANES = 256
_CONCURRENCY = 64
_LOOKS = 10
_MOST_GROWTH = 4.0  # MB
_MOST_OBJECTS = 2_000
_PATIENCE = 120.0  # seconds for what was published to be run


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a process was like when so many tasks were done."""

    done: int
    memory: float
    objects: int
    vitals: Vitals


class Steady:
    """Publishes and runs.

    Args:
        tasks: how many.
    """

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._left = 0
        self.done = 0
        self.looks: list[Look] = []

    async def _process(self, payload: Any) -> None:
        self.done += 1

    async def run(self, url: str) -> None:
        """Do all of it."""
        settings = Settings(event_queue={"url": url})
        cluster = Cluster(f"steady-{uuid.uuid4().hex[:8]}", settings=settings)
        cluster.event_queue.subscribe(_CHANNEL, self._process, concurrency=_CONCURRENCY)
        async with cluster:
            for number in range(1, _LOOKS + 1):
                self._left += self._tasks // _LOOKS
                async with asyncio.TaskGroup() as group:
                    for _ in range(_LANES):
                        group.create_task(self._publish(cluster))
                target = number * (self._tasks // _LOOKS)
                await eventually(lambda: self.done, partial(le, target), timeout=_PATIENCE)
                await self._look()

    async def _publish(self, cluster: Cluster) -> None:
        while self._left > 0:
            self._left -= 1
            await cluster.event_queue.publish(_CHANNEL, {"number": self._left})

    async def _look(self) -> None:
        at_rest = await settled(self.looks[0].vitals if self.looks else vitals())
        objects = len(gc.get_objects())
        self.looks.append(Look(done=self.done, memory=memory(), objects=objects, vitals=at_rest))

    def rows(self) -> list[Row]:
        """Return the table."""
        warm, last = self.looks[1], self.looks[-1]
        rows: list[Row] = [
            (f"after {look.done:,}: MB, objects", f"{look.memory:.1f}, {look.objects:,}", None)
            for look in self.looks
        ]
        grown, more = last.memory - warm.memory, last.objects - warm.objects
        return [
            *rows,
            ("MB it grew by", f"{grown:.1f}", grown <= _MOST_GROWTH),
            ("objects more", more, more <= _MOST_OBJECTS),
            ("tasks and futures as before", "", not last.vitals.grown_from(warm.vitals)),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Many tasks through one process.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--tasks", type=int, default=200_000)
    given = parser.parse_args()
    steady = Steady(given.tasks)
    if given.url:
        asyncio.run(steady.run(given.url))
    else:
        try:
            server = start_rabbitmq()
        except NodeUnavailableError as exc:
            sys.exit(str(exc))
        try:
            asyncio.run(steady.run(server.new_url()))
        finally:
            server.close()
    rows = steady.rows()
    Console().print(table_of(rows))
    sys.stdout.write(f"{sum(os.times()[:2]):.0f} s of CPU\n")
    return 0 if all(kept is not False for _, _, kept in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
