"""Runs measuring processes, one peer at a time, and looks at the broker after each."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from benchmarks import broker
from benchmarks.peer import Peer, load

CHILD_SECONDS = 900.0
"""After which a process that does not end is killed and has failed."""

Figures = dict[str, Any]


class ChildError(Exception):
    """A measuring process has failed."""

    def __init__(self, role: str, peer: str) -> None:
        super().__init__(f"{role} with {peer} failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: of full speed in each measurement.
        rate: publishes a second where the latency is measured.
        paced: messages published at that rate.
        memory: messages after which memory is looked at again.
        rest: seconds at rest before memory is read.
        delays: seconds, in the order of publishing.
    """

    seconds: float = 3.0
    rate: float = 200.0
    paced: int = 1_000
    memory: int = 200_000
    rest: float = 1.0
    delays: tuple[float, ...] = (6.0, 3.0, 1.0)


class Process:
    """A measuring process that runs."""

    def __init__(self, process: subprocess.Popen[str], lines: IO[str], what: ChildError) -> None:
        self._process = process
        self._lines = lines
        self._what = what

    def await_ready(self) -> None:
        """Wait until it consumes."""
        for line in self._lines:
            if line == "ready\n":
                return
        raise self._what

    def result(self) -> Figures:
        """Wait for its end and return its figures."""
        output = self._lines.read()
        if self._process.wait() != 0:
            raise self._what
        figures: Figures = json.loads(output.splitlines()[-1])
        return figures


class Lab:
    """One peer on one queue of its own.

    Args:
        url: of the broker.
        name: of the peer.
        plan: how much is measured.
    """

    def __init__(self, url: str, name: str, plan: Plan) -> None:
        self._url = url
        self._name = name
        self.plan = plan
        self.peer: Peer = load(name)
        self._queue = f"bench-{uuid.uuid4().hex[:8]}"
        self.wrong = {"lost": 0, "left": 0, "again": 0, "failed": 0}

    def close(self) -> None:
        """Delete its queues."""
        broker.drop(self._url, [pattern.format(self._queue) for pattern in self.peer.queues])

    @contextlib.contextmanager
    def process(self, role: str, **options: object) -> Iterator[Process]:
        """Start a process; it is killed if it outlives the context."""
        arguments = [role, self._name, self._queue, json.dumps(options)]
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.child", *arguments],
            env=_environment() | {"BENCHMARK_URL": self._url},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None  # it is a pipe
            watchdog = threading.Timer(CHILD_SECONDS, process.kill)
            watchdog.start()
            try:
                yield Process(process, process.stdout, ChildError(role, self._name))
            finally:
                watchdog.cancel()
                process.kill()

    def stored(self) -> int:
        """Return how many messages wait in the work queue."""
        return broker.ready(self._url, self.peer.queues[0].format(self._queue), 0)

    def publish(self, **options: object) -> Figures:
        """Publish, and see that all of it is stored."""
        with self.process("publish", **options) as process:
            return self._check_stored(process.result())

    def publish_later(self, *delays: float) -> None:
        """Publish a message for each delay, in this order, by a process that ends at once."""
        with self.process("later", delays=delays) as process:
            process.result()

    def _check_stored(self, figures: Figures) -> Figures:
        queue = self.peer.queues[0].format(self._queue)
        found = broker.ready(self._url, queue, figures["stored"])
        self.wrong["lost"] += figures["stored"] - found
        return figures

    def consume(
        self, expected: int, *, meanwhile: Callable[[], None] | None = None, **options: object
    ) -> Figures:
        """Consume, and see that nothing is missing and nothing is left."""
        with self.process("consume", expected=expected, **options) as process:
            if meanwhile:
                process.await_ready()
                meanwhile()
            return self.check_empty(process.result())

    def pace(self) -> None:
        """Publish at the rate of the plan."""
        with self.process("pace", rate=self.plan.rate, count=self.plan.paced) as process:
            process.result()

    def start(self) -> Figures:
        """Start a consumer on one waiting message; add the seconds until it was handled."""
        begun = time.monotonic()
        with self.process("start", rest=self.plan.rest) as process:
            figures = self.check_empty(process.result())
        return figures | {"wall": figures["first_at"] - begun}

    def check_empty(self, figures: Figures) -> Figures:
        """Note what a consumer missed, repeated or left."""
        left = self.stored()
        self.wrong["left"] += left
        self.wrong["lost"] += max(0, figures["lost"] - left)
        self.wrong["again"] += figures["again"]
        return figures


def _environment() -> dict[str, str]:
    """Return this environment, in which bytecode is kept: what pip installs comes with it."""
    kept = {**os.environ}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept
