"""Watches used inside a measuring process: time, memory, and what its handlers were given."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import payload
from benchmarks.peer import AgainError, Payload, Timed

_ROLLUP = Path("/proc/self/smaps_rollup")
_WARM_SHARE = 10
"""Memory is read for the first time after this part of all messages."""

PATIENCE = 30.0
"""Seconds without any progress after which whatever is missing counts as lost."""


class Stopwatch:
    """Measures both kinds of time from its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._wall

    def stop(self, count: int) -> Timed:
        """Return what has passed, for `count` messages."""
        cpu = time.process_time() - self._cpu
        return Timed(count=count, seconds=self.seconds, cpu=cpu)


def memory() -> dict[str, float]:
    """Return resident and proportional memory of this process, MB; nothing where it is unknown."""
    if not _ROLLUP.exists():
        return {}
    fields = dict(line.split(":", 1) for line in _ROLLUP.read_text().splitlines()[1:])
    return {name: int(fields[name.title()].split()[0]) / 1024 for name in ("rss", "pss")}


class Warmth:
    """Memory of a process that does `count` things: when a tenth is done, and at the end."""

    def __init__(self, count: int) -> None:
        self._at = count // _WARM_SHARE
        self._warm: dict[str, float] = {}
        self._end: dict[str, float] = {}

    def look(self) -> None:
        """Note the memory: this is the end."""
        self._end = memory()

    def done(self, number: int) -> None:
        """So many are done; is called for each of them."""
        if number == self._at:
            self._warm = memory()

    def figures(self) -> dict[str, float]:
        """Return both."""
        return {f"warm_{name}": size for name, size in self._warm.items()} | self._end


class Tally:
    """Is given every payload that arrives.

    Args:
        expected: different payloads that will come.
        failures: how often each of them fails before it is done.
        ages: whether it is noted how old each one is.
    """

    def __init__(self, expected: int, *, failures: int = 0, ages: bool = False) -> None:
        self._expected = expected
        self._failures = failures
        self._runs = bytearray(expected)
        self._done = 0
        self._watch = Stopwatch()
        self._noted: list[tuple[int, float]] | None = [] if ages else None
        self._warmth = Warmth(expected)
        self.again = 0
        self.calls = 0
        self.first_at: float | None = None
        self.timed = Timed(count=0, seconds=0.0, cpu=0.0)

    @property
    def finished(self) -> bool:
        """Whether every payload is done."""
        return self._done >= self._expected

    def handle(self, given: Payload) -> None:
        """Note a payload.

        Raises:
            AgainError: it has not failed often enough yet.
        """
        if self.first_at is None:
            self.first_at = time.monotonic()
            self._watch = Stopwatch()
        self.calls += 1
        number = payload.number_of(given)
        runs = self._runs[number]
        if runs > self._failures:
            self.again += 1
            return
        self._runs[number] = runs + 1
        if runs < self._failures:
            raise AgainError
        if self._noted is not None:
            self._noted.append((number, payload.age(given)))
        self._finish_one()

    def look(self) -> None:
        """Note the memory as it is now, while the peer is connected."""
        self._warmth.look()

    def _finish_one(self) -> None:
        self._done += 1
        self._warmth.done(self._done)
        if self._done == self._expected:
            self.timed = self._watch.stop(self._done)

    def figures(self) -> dict[str, object]:
        """Return what was noted; `lost` is how many never came."""
        return {
            **self.timed.figures(),
            "lost": self._expected - self._done,
            "again": self.again,
            "ages": self._noted or [],
            **self._warmth.figures(),
        }


class Standstill:
    """Notices that a tally has not moved for `PATIENCE`."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._calls = -1
        self._since = time.monotonic()

    def __call__(self) -> bool:
        """Whether there is nothing to wait for any more."""
        if self._tally.finished:
            return True
        if self._tally.calls != self._calls:
            self._calls, self._since = self._tally.calls, time.monotonic()
        return time.monotonic() - self._since > PATIENCE
