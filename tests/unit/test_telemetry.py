from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cluster_kit.errors import ConfigurationError
from cluster_kit.message import Reject, Retry, Snooze
from cluster_kit.telemetry import EVENTS, Telemetry
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder, answers
from cluster_kit.testing.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
HARNESS = ROOT / "cluster_kit" / "testing"
FAMILIES = sorted({event.partition(".")[0] for event in EVENTS})
EVENT = re.compile(rf"({'|'.join(FAMILIES)})\.[a-z_]+")
ADDED_BY = {"_report_each": {"kind", "channel", "id", "subscription"}, "_tell": {"channel", "id"}}
"""Functions that complete the fields they are called with."""

# Emitted where only the run tells which event it is; the test of a whole life covers it.
DYNAMIC = {"task.snoozed"}


@cache
def emissions() -> tuple[tuple[str, str, frozenset[str]], ...]:
    """Place, event and fields of every call in the code whose first argument is an event."""
    files = [path for top in ("cluster_kit", "adapters") for path in (ROOT / top).rglob("*.py")]
    return tuple(
        (f"{path.relative_to(ROOT)}:{call.lineno}", event, fields(call))
        for path in sorted(files)
        if HARNESS not in path.parents  # it listens
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and (event := first_argument(call)) is not None
    )


def fields(call: ast.Call) -> frozenset[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    given = {word.arg for word in call.keywords if word.arg is not None}
    return frozenset(given | ADDED_BY.get(name, set()))


def first_argument(call: ast.Call) -> str | None:
    match call.args:
        case [ast.Constant(value=str(event)), *_] if EVENT.fullmatch(event):
            return event
        case _:
            return None


def test_every_event_in_the_code_is_documented_with_exactly_its_fields() -> None:
    wrong = [
        (place, event, sorted(given))
        for place, event, given in emissions()
        if given != set(EVENTS.get(event, ()))
    ]

    assert wrong == []


def test_every_documented_event_is_emitted_somewhere() -> None:
    assert set(EVENTS) - {event for _, event, _ in emissions()} == DYNAMIC


@pytest.mark.asyncio
async def test_the_life_of_an_instance_is_told_with_the_documented_fields(
    cluster_factory: ClusterFactory,
) -> None:
    heard: list[tuple[str, Mapping[str, object]]] = []
    [cluster] = await cluster_factory(start=False)
    cluster.telemetry.subscribe(lambda event, fields: heard.append((event, fields)))
    recorder = Recorder(answers(Snooze(0), ValueError("odd"), Retry(delay=0), None, Reject("no")))
    cluster.event_queue.subscribe("mails", recorder.handle, max_retries=5)

    async with cluster:
        first = await cluster.event_queue.publish("mails", 1)
        await recorder.finished(4)
        second = await cluster.event_queue.publish("mails", 2)
        await eventually(lambda: "task.dead" in [event for event, _ in heard])

    wrong = [(event, fields) for event, fields in heard if set(fields) != set(EVENTS[event])]
    assert wrong == []
    own = [(event, fields["id"]) for event, fields in heard if event.startswith("task.")]
    assert [event for event, task in own if task == first] == [
        *("task.published", "task.started", "task.snoozed", "task.started", "task.retried"),
        *("task.started", "task.retried", "task.started", "task.done"),
    ]
    assert [event for event, task in own if task == second] == [
        *("task.published", "task.started", "task.dead"),
    ]
    assert [event for event, _ in heard if event.startswith("cluster.")] == [
        *("cluster.started", "cluster.stopped"),
    ]


def test_observers_hear_everything_until_they_leave() -> None:
    telemetry, heard = Telemetry(), list[tuple[str, Mapping[str, object]]]()
    leave = telemetry.subscribe(lambda event, fields: heard.append((event, fields)))

    telemetry.emit("task.ack_lost", channel="mails", id="1")
    leave()
    leave()
    telemetry.emit("task.ack_lost", channel="mails", id="2")

    assert heard == [("task.ack_lost", {"channel": "mails", "id": "1"})]


def test_an_observer_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry, heard = Telemetry(), list[str]()

    def fails(_event: str, _fields: Mapping[str, object]) -> None:
        raise LookupError("no such shelf")

    telemetry.subscribe(fails)
    telemetry.subscribe(lambda event, _: heard.append(event))
    telemetry.emit("task.ack_lost", channel="mails", id="1")

    assert heard == ["task.ack_lost"]
    [record] = caplog.records
    assert record.getMessage() == "telemetry observer failed on task.ack_lost"
    assert record.exc_info is not None


def test_an_observer_that_fails_again_and_again_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry, kinds = Telemetry(), [LookupError, *[ValueError] * 100, LookupError]

    def fails(_event: str, _fields: Mapping[str, object]) -> None:
        raise kinds.pop()("odd")

    telemetry.subscribe(fails)
    while kinds:
        telemetry.emit("task.ack_lost", channel="mails", id="1")

    first, other, *later = caplog.records
    assert first.exc_info is not None
    assert other.exc_info is not None
    assert [record.exc_info for record in later] == [None, None]
    assert [record.getMessage() for record in later] == [
        f"telemetry observer failed {times} times with ValueError, now on task.ack_lost: odd"
        for times in (10, 100)
    ]


def test_an_observer_may_leave_while_it_is_called() -> None:
    telemetry, heard = Telemetry(), list[str]()

    def once(event: str, _fields: Mapping[str, object]) -> None:
        leave()
        heard.append(f"once {event}")

    leave = telemetry.subscribe(once)
    telemetry.subscribe(lambda event, _: heard.append(event))
    telemetry.emit("a.b")
    telemetry.emit("c.d")

    assert heard == ["once a.b", "a.b", "c.d"]


async def late(event: str, fields: Mapping[str, object]) -> None: ...


@pytest.mark.parametrize(
    ("observer", "text"),
    [
        (5, "a telemetry observer is a function, not int"),
        (lambda event: event, r"a telemetry observer must take \(event, fields\)"),
        (late, "a telemetry observer is called, not awaited"),
    ],
)
def test_what_cannot_observe_is_refused(observer: Any, text: str) -> None:
    telemetry = Telemetry()
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        telemetry.subscribe(observer)
    assert not telemetry.heard
