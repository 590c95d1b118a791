"""The judge of a load run finds what it is there to find."""

from __future__ import annotations

import pytest

from integration.load.history import PUBLISHER, History
from integration.load.journal import Record
from integration.load.verdict import KILLED, PUBLISHING, RUNNING, UNHEARD, Verdict, judge


def published(task: str, start: float = 0.0, end: float = 0.1) -> list[Record]:
    return [Record(PUBLISHER, start, "publishing", task), Record(PUBLISHER, end, "published", task)]


def ran(task: str, worker: str, start: float, end: float | None = None) -> list[Record]:
    records = [Record(worker, start, "task.started", task)]
    return records if end is None else [*records, Record(worker, end, "done", task)]


def disconnected(source: str, at: float, purpose: str = "consume") -> list[Record]:
    return [Record(source, at, "connection.lost", "", f"{purpose} closed")]


def closing(begin: float, end: float) -> list[Record]:
    return [
        Record(PUBLISHER, begin, "fault", "", "closing"),
        Record(PUBLISHER, end, "fault over", "", "closing"),
    ]


def verdict_of(*parts: list[Record], concurrency: int = 8) -> Verdict:
    records = sorted((record for part in parts for record in part), key=lambda record: record.at)
    return judge(History.of(records), concurrency=concurrency, publishing=64)


def test_one_run_of_each_is_good() -> None:
    assert verdict_of(published("a"), ran("a", "w", 1.0, 1.2)) == Verdict()


def test_a_confirmed_task_that_never_finished_is_lost() -> None:
    verdict = verdict_of(published("a"), published("b"), ran("b", "w", 1.0))

    assert verdict.lost == ["a", "b"]


def test_a_publish_that_raised_promised_nothing() -> None:
    raised = [
        Record(PUBLISHER, 0.0, "publishing", "a"),
        Record(PUBLISHER, 9.0, "publish failed", "a", "ConnectionLost: no connection"),
    ]

    assert verdict_of(raised).lost == []


def test_a_second_run_out_of_nowhere_is_unexplained() -> None:
    verdict = verdict_of(published("a"), ran("a", "v", 1.0, 1.2), ran("a", "w", 3.0, 3.2))

    assert (verdict.again, verdict.twice, verdict.unexplained) == (1, 1, ["a"])


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (disconnected("v", 1.1), RUNNING),
        (disconnected("v", 1.3), UNHEARD),
        ([Record(PUBLISHER, 1.1, "killed", "", "v")], KILLED),
        (disconnected(PUBLISHER, 0.05, "publish"), PUBLISHING),
    ],
)
def test_a_loss_explains_one_further_run(cause: list[Record], kind: str) -> None:
    runs = ran("a", "v", 1.0, 1.2) + ran("a", "w", 3.0, 3.2)

    once = verdict_of(published("a"), runs, cause)
    twice = verdict_of(published("a"), runs, ran("a", "x", 4.0, 4.2), cause)

    assert (once.causes, once.unexplained) == ({kind: 1}, [])
    assert twice.unexplained == ["a"]


@pytest.mark.parametrize(
    "no_cause",
    [
        disconnected("v", 0.9),
        disconnected("v", 2.0),
        disconnected("v", 1.1, "publish"),
        disconnected("w", 1.1),
        disconnected(PUBLISHER, 0.2, "publish"),
    ],
    ids=["before it", "long after it", "other connection", "other worker", "publish was over"],
)
def test_a_loss_explains_only_what_was_in_flight(no_cause: list[Record]) -> None:
    runs = ran("a", "v", 1.0, 1.2) + ran("a", "w", 3.0, 3.2)

    assert verdict_of(published("a"), runs, no_cause).unexplained == ["a"]


def test_a_loss_does_not_explain_an_earlier_run() -> None:
    runs = ran("a", "v", 1.0, 1.2) + ran("a", "w", 3.0, 9.0)

    assert verdict_of(published("a"), runs, disconnected("w", 5.0)).unexplained == ["a"]


def test_a_worker_had_more_than_it_may() -> None:
    tasks = [f"task-{number}" for number in range(3)]
    runs = [ran(task, "v", 1.0, 1.2) + ran(task, "w", 3.0, 3.2) for task in tasks]

    verdict = verdict_of(*map(published, tasks), *runs, disconnected("v", 1.1), concurrency=2)

    assert verdict.unexplained == []
    assert verdict.hoarded == ["v lost its connection and 3 tasks ran again"]


def test_a_connection_lost_by_itself_is_told() -> None:
    late = disconnected("w", 30.0)

    verdict = verdict_of(closing(1.0, 2.0), disconnected("v", 1.5), late)

    assert verdict.unprovoked == ["w: closed"]
