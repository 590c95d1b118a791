"""From samples to figures: medians, spreads, ratios within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OWN = "cluster_kit"
OWN_IN_PLACE = "cluster_kit_in_place"
YARDSTICK = "aio_pika_raw"
LIMIT = "raw_socket"

Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""Samples of an experiment by peer, one a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A figure and how it is shown."""

    name: str
    head: str
    digits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures of an experiment that are read together.

    Ratios are those of the first column, to that of `yardstick` in the same round.
    """

    experiment: str
    title: str
    columns: Sequence[Column]
    more_is_better: bool = True
    yardstick: str = YARDSTICK


_CPU = "processor time, µs a message"
_RATE = "messages a second"

TABLES: Sequence[Table] = (
    Table(
        experiment="bulk",
        title="Confirmed publish, 256 under way",
        columns=(Column(name="publish.rate", head=_RATE), Column(name="publish.cpu", head=_CPU)),
    ),
    Table(
        experiment="bulk",
        title="Consume, prefetch 64, ack after the handler",
        columns=(Column(name="consume.rate", head=_RATE), Column(name="consume.cpu", head=_CPU)),
    ),
    Table(
        experiment="retry",
        title="Retry: each task fails once and runs again at once",
        columns=(
            Column(name="retry.rate", head="tasks done a second"),
            Column(name="retry.cpu", head="processor time, µs a task"),
        ),
    ),
    Table(
        experiment="serial",
        title="Confirmed publish, one after the other",
        columns=(Column(name="serial.rate", head=_RATE), Column(name="serial.cpu", head=_CPU)),
    ),
    Table(
        experiment="latency",
        title="Latency at 200 a second, publish to handler",
        columns=(
            Column(name="latency.p50", head="median, ms", digits=2),
            Column(name="latency.p99", head="99th percentile, ms", digits=1),
        ),
        more_is_better=False,
    ),
    Table(
        experiment="start",
        title="Start of a process to its first message, and memory at rest",
        columns=(
            Column(name="start.wall", head="first message, s", digits=2),
            Column(name="start.import", head="of it imports, s", digits=2),
            Column(name="start.rss", head="RSS, MB", digits=1),
            Column(name="start.pss", head="PSS, MB", digits=1),
        ),
        more_is_better=False,
    ),
    Table(
        experiment="memory",
        title="RSS in MB after a tenth of the messages and after all of them",
        columns=(
            Column(name="memory.publish.warm", head="publisher, a tenth", digits=1),
            Column(name="memory.publish.end", head="publisher, all", digits=1),
            Column(name="memory.consume.warm", head="consumer, a tenth", digits=1),
            Column(name="memory.consume.end", head="consumer, all", digits=1),
        ),
        more_is_better=False,
    ),
    Table(
        experiment="delays",
        title="Delayed publish, the publisher gone meanwhile",
        columns=(
            Column(name="delays.late", head="latest run, ms after it was due"),
            Column(name="delays.early", head="earliest run, ms before it was due"),
            Column(name="delays.in_queue", head="in the work queue before they were due"),
            Column(name="delays.disorder", head="out of order"),
        ),
        more_is_better=False,
    ),
)

_WALL = "by the clock"


def _of_redis(what: str) -> Table:
    return Table(
        experiment=f"cache.{what}",
        title=f"{what.title()} of an object on Redis, µs",
        columns=(
            Column(name=f"{what}.cpu", head="processor time", digits=1),
            Column(name=f"{what}.wall", head=_WALL, digits=1),
        ),
        more_is_better=False,
        yardstick="aiocache",
    )


CACHE_TABLES: Sequence[Table] = (
    Table(
        experiment="cache.hit",
        title="Get of a value that is in the process, µs",
        columns=(
            Column(name="hit.object.cpu", head="object of objects, processor time", digits=2),
            Column(name="hit.object.wall", head=_WALL, digits=2),
            Column(name="hit.flat.cpu", head="flat object, processor time", digits=2),
            Column(name="hit.text.cpu", head="text, processor time", digits=2),
        ),
        more_is_better=False,
        yardstick="aiocache",
    ),
    _of_redis("set"),
    _of_redis("get"),
    Table(
        experiment="cache.memory",
        title="RSS in MB after a tenth of the sets and after all of them, each of another key",
        columns=(
            Column(name="memory.tenth", head="a tenth", digits=1),
            Column(name="memory.all", head="all", digits=1),
            Column(name="memory.sets", head="sets"),
        ),
        more_is_better=False,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, least and greatest."""

    low: float
    middle: float
    high: float

    def text(self, digits: int) -> str:
        """Return it as it is printed."""
        if self.low == self.high:
            return f"{self.middle:,.{digits}f}"
        return f"{self.middle:,.{digits}f} [{self.low:,.{digits}f}-{self.high:,.{digits}f}]"


def spread(rounds: Rounds, peer: str, name: str) -> Spread | None:
    """Return the spread of a figure; None if the peer has none."""
    values = [sample[name] for sample in rounds.get(peer, ()) if name in sample]
    if not values:
        return None
    return Spread(low=min(values), middle=statistics.median(values), high=max(values))


def ratio(rounds: Rounds, peer: str, to: str, name: str) -> float | None:
    """Return the median of the ratios within each round: what disturbs a round disturbs both."""
    pairs = zip(rounds.get(peer, ()), rounds.get(to, ()), strict=False)
    ratios = [a[name] / b[name] for a, b in pairs if name in a and b.get(name)]
    return statistics.median(ratios) if ratios else None
