"""The two processes of a soak: one publishes at full speed, the other runs what it publishes.

Started by `integration.load.soak`. Each prints a line of JSON when it is ready and one at its end,
which SIGTERM asks for. Where they connect is in the environment, as for `integration.load.worker`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from cluster_kit import Cluster
from cluster_kit.errors import TransportError
from integration.load.marks import Marks
from integration.load.vitals import Samples, settled, vitals

CHANNEL = "work"
CONFIRMED, PROCESSED = "confirmed", "processed"

_LANES = 256
_CONCURRENCY = 64
_AHEAD = 3_000
"""Tasks that may wait: what the publisher is faster must not fill the broker."""


class Soaked:
    """A process under watch.

    Args:
        folder: where the marks are.
        capacity: most tasks of the run.
        rate: tasks a second at most; 0: as many as there can be.
    """

    def __init__(self, folder: Path, capacity: int, rate: float = 0.0) -> None:
        self.confirmed = Marks(folder / CONFIRMED, capacity)
        self.processed = Marks(folder / PROCESSED, capacity)
        self._capacity, self._rate = capacity, rate
        self._stop = asyncio.Event()
        self._began = 0.0
        self._heard = Counter[str]()

    @contextlib.asynccontextmanager
    async def watched(self, cluster: Cluster) -> AsyncIterator[None]:
        """Tell the vitals at the start and at the end of the context, and all between them."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        samples = Samples()
        sampling = asyncio.create_task(samples.run())
        at_start = vitals()
        _tell(dataclasses.asdict(at_start))
        cluster.telemetry.subscribe(self._observe)
        yield
        at_end = await settled(at_start)
        sampling.cancel()
        ended = {"vitals": dataclasses.asdict(at_end), "memory": samples.memory}
        _tell(ended | {"heard": self._heard})

    def _observe(self, event: str, fields: Mapping[str, object]) -> None:
        if event == "connection.lost":
            self._heard[f"{event} {fields['purpose']}"] += 1
        elif not event.startswith("task."):
            self._heard[event] += 1

    async def publish(self) -> None:
        """Publish until told to stop."""
        async with Cluster() as cluster:
            await self._publish(cluster, 0)
            async with self.watched(cluster):
                numbers = itertools.count(1)
                self._began = asyncio.get_running_loop().time()
                async with asyncio.TaskGroup() as lanes:
                    for _ in range(_LANES):
                        lanes.create_task(self._lane(cluster, numbers))

    async def _lane(self, cluster: Cluster, numbers: itertools.count[int]) -> None:
        while not self._stop.is_set():
            if self.confirmed.different - self.processed.different > _AHEAD:
                await asyncio.sleep(0.02)
                continue
            number = next(numbers)
            if number >= self._capacity:
                return
            if self._rate:
                due = self._began + number / self._rate
                await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._publish(cluster, number)

    async def _publish(self, cluster: Cluster, number: int) -> None:
        try:
            await cluster.event_queue.publish(CHANNEL, {"number": number})
        except TransportError as exc:
            self._heard[f"publish raised {type(exc).__name__}"] += 1
        else:
            self.confirmed.mark(number)

    async def work(self) -> None:
        """Run tasks until told to stop."""
        cluster = Cluster()

        async def process(payload: Any) -> None:
            self.processed.mark(payload["number"])

        cluster.event_queue.subscribe(CHANNEL, process, concurrency=_CONCURRENCY)
        async with cluster, self.watched(cluster):
            await self._stop.wait()


def _tell(what: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "work"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("capacity", type=int)
    parser.add_argument("--rate", type=float, default=0.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    soaked = Soaked(given.folder, given.capacity, given.rate)
    await (soaked.publish() if given.role == "publish" else soaked.work())


if __name__ == "__main__":
    asyncio.run(main())
