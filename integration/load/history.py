"""The journals of a run, put in order: every publish, every run, every loss."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from integration.load.journal import Record

PUBLISHER = "publisher"


@dataclass(slots=True)
class Run:
    """One run of a handler. `end` is infinite when it never ended."""

    worker: str
    start: float
    end: float = math.inf


@dataclass(slots=True)
class Publish:
    """One publish. `end` is infinite while it has not returned; `error` is set when it raised."""

    start: float
    end: float = math.inf
    error: str = ""

    @property
    def confirmed(self) -> bool:
        return self.end < math.inf and not self.error


@dataclass(frozen=True, slots=True)
class Loss:
    """The moment from which a process could tell the broker nothing more about its tasks.

    `what`: ``connection`` or ``worker``; `reason` is what the process was told.
    """

    source: str
    at: float
    what: str
    reason: str = ""


@dataclass(slots=True)
class Fault:
    """What was done to the cluster, and when."""

    name: str
    begin: float
    end: float = math.inf


@dataclass(slots=True)
class History:
    """What happened in a run."""

    publishes: dict[str, Publish] = field(default_factory=dict[str, Publish])
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict[str, list[Run]](list))
    losses: list[Loss] = field(default_factory=list[Loss])
    faults: list[Fault] = field(default_factory=list[Fault])

    @classmethod
    def of(cls, records: Iterable[Record]) -> History:
        """Build it from records in the order of their times."""
        history = cls()
        for record in records:
            if record.event in _READERS:
                _READERS[record.event](history, record)
        return history

    def finished(self) -> set[str]:
        """Return the tasks that were processed at least once."""
        return {task for task, runs in self.runs.items() if any(r.end < math.inf for r in runs)}

    def confirmed(self) -> set[str]:
        """Return the tasks whose publish returned."""
        return {task for task, publish in self.publishes.items() if publish.confirmed}

    def failed(self) -> set[str]:
        """Return the tasks whose publish raised."""
        return {task for task, publish in self.publishes.items() if publish.error}


def _publishing(history: History, record: Record) -> None:
    history.publishes[record.task] = Publish(record.at)


def _published(history: History, record: Record) -> None:
    history.publishes[record.task].end = record.at


def _publish_failed(history: History, record: Record) -> None:
    publish = history.publishes[record.task]
    publish.end, publish.error = record.at, record.detail


def _started(history: History, record: Record) -> None:
    history.runs[record.task].append(Run(record.source, record.at))


def _done(history: History, record: Record) -> None:
    for run in reversed(history.runs[record.task]):
        if run.worker == record.source and run.end == math.inf:
            run.end = record.at
            return
    raise ValueError(f"{record.source} finished {record.task}, which it had not started")


def _connection_lost(history: History, record: Record) -> None:
    purpose, _, reason = record.detail.partition(" ")
    # What a worker's publishing connection carries is no task of its own, and the other way round.
    if purpose == ("publish" if record.source == PUBLISHER else "consume"):
        history.losses.append(Loss(record.source, record.at, "connection", reason))


def _killed(history: History, record: Record) -> None:
    history.losses.append(Loss(record.detail, record.at, "worker"))


def _fault(history: History, record: Record) -> None:
    history.faults.append(Fault(record.detail, record.at))


def _fault_over(history: History, record: Record) -> None:
    for fault in history.faults:
        if fault.name == record.detail:
            fault.end = record.at


_READERS = {
    "publishing": _publishing,
    "published": _published,
    "publish failed": _publish_failed,
    "task.started": _started,
    "done": _done,
    "connection.lost": _connection_lost,
    "killed": _killed,
    "fault": _fault,
    "fault over": _fault_over,
}
