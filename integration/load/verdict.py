"""Judges a run by its history: was anything lost, and why did tasks run twice?

A task may run again when it was in flight at a loss: a worker had it, or its publish was under
way. A worker has a task from its start until the broker has heard of its end, which is a moment
later than the handler's end and is written down nowhere; `SETTLING` bounds that moment, and the
number of tasks one loss can bring back is bounded by what the worker may hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from integration.load.history import PUBLISHER, History, Loss

SETTLING = 0.5
"""Seconds after the end of a handler within which the broker has its acknowledgement."""

NOTICING = 0.5
"""Seconds that a process may take to notice what the broker has already acted upon."""

AFTERMATH = 3.0
"""Seconds after a fault within which a lost connection counts as its consequence."""

RUNNING = "running at a closed connection"
KILLED = "running in a killed worker"
UNHEARD = "finished, acknowledgement not yet heard"
PUBLISHING = "publish under way at a closed connection"


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason why a task may run once more."""

    loss: Loss
    kind: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run has shown.

    Attributes:
        lost: tasks whose publish returned and that were never processed.
        again: tasks that were started more than once.
        twice: those of them that were also finished more than once.
        causes: how many further runs there were, by kind of cause.
        unexplained: tasks that ran again without having been in flight at a loss.
        hoarded: losses that brought back more than the process may have in flight.
        unprovoked: connections that were lost without a fault of ours.
    """

    lost: list[str] = field(default_factory=list[str])
    again: int = 0
    twice: int = 0
    causes: dict[str, int] = field(default_factory=dict[str, int])
    unexplained: list[str] = field(default_factory=list[str])
    hoarded: list[str] = field(default_factory=list[str])
    unprovoked: list[str] = field(default_factory=list[str])


def judge(history: History, *, concurrency: int, publishing: int) -> Verdict:
    """Judge a run.

    Args:
        history: of the run.
        concurrency: tasks a worker may have at a time.
        publishing: publishes that may be under way at a time.
    """
    causes: list[Cause] = []
    unexplained: list[str] = []
    again = {task for task, runs in history.runs.items() if len(runs) > 1}
    for task in sorted(again):
        found = _explain(history, task)
        causes += found
        if len(found) < len(history.runs[task]) - 1:
            unexplained.append(task)
    return Verdict(
        lost=sorted(history.confirmed() - history.finished()),
        again=len(again),
        twice=sum(_finished_twice(history, task) for task in again),
        causes=dict(Counter(cause.kind for cause in causes)),
        unexplained=unexplained,
        hoarded=_hoarded(causes, concurrency=concurrency, publishing=publishing),
        unprovoked=[f"{x.source}: {x.reason}" for x in history.losses if _unprovoked(history, x)],
    )


def _finished_twice(history: History, task: str) -> bool:
    return sum(run.end < float("inf") for run in history.runs[task]) > 1


def _explain(history: History, task: str) -> list[Cause]:
    """Give each run after the first the earliest cause before it that explains no other run."""
    possible = sorted(_possible(history, task), key=lambda cause: cause.loss.at)
    found: list[Cause] = []
    for run in history.runs[task][1:]:
        for cause in possible:
            if cause.loss.at <= run.start + NOTICING:
                found.append(cause)
                possible.remove(cause)
                break
    return found


def _possible(history: History, task: str) -> Iterable[Cause]:
    publish = history.publishes.get(task)
    for loss in history.losses:
        if publish and loss.source == PUBLISHER and publish.start <= loss.at <= publish.end:
            yield Cause(loss, PUBLISHING)
        for run in history.runs[task]:
            if run.worker == loss.source and run.start <= loss.at <= run.end + SETTLING:
                yield Cause(loss, _kind(loss, ended=run.end < loss.at))


def _kind(loss: Loss, *, ended: bool) -> str:
    if ended:
        return UNHEARD
    return KILLED if loss.what == "worker" else RUNNING


def _hoarded(causes: Iterable[Cause], *, concurrency: int, publishing: int) -> list[str]:
    counts = Counter(cause.loss for cause in causes)
    return [
        f"{loss.source} lost its {loss.what} and {count} tasks ran again"
        for loss, count in counts.items()
        if count > (publishing if loss.source == PUBLISHER else concurrency)
    ]


def _unprovoked(history: History, loss: Loss) -> bool:
    return loss.what == "connection" and not any(
        fault.begin <= loss.at <= fault.end + AFTERMATH for fault in history.faults
    )
