from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_kit.cli.demo import journal, promises
from cluster_kit.cli.demo.workload import Workload
from cluster_kit.message import Delivery
from cluster_kit_memory.event_queue import MemoryEventQueue
from tests.cli.support import Outcome, run_command

pytestmark = pytest.mark.slow


def rows(outcome: Outcome) -> dict[str, tuple[bool, str]]:
    return {row["promise"]: (row["proved"], row["happened"]) for row in outcome.json}


def only(
    monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object], patience: float = 15.0
) -> None:
    chosen = tuple(promise for promise in promises.PROMISES if promise.prove is prove)
    monkeypatch.setattr("cluster_kit.cli.demo.PROMISES", chosen)
    monkeypatch.setattr(journal, "PATIENCE", patience)
    monkeypatch.setattr("cluster_kit.cli.demo.stage.PATIENCE", patience)


def test_every_promise_is_proved() -> None:
    outcome = run_command("demo", "--instances", "2")

    lines = outcome.out.splitlines()
    assert outcome.code == 0, outcome.out
    assert lines[0].split() == ["promise", "what", "happened", "proved"]
    assert len(lines) == 1 + len(promises.PROMISES)
    assert all(line.endswith("  yes") for line in lines[1:])
    assert outcome.err.startswith("2 instances, objects of one process\n")
    assert outcome.err.count("... proved in") == len(promises.PROMISES)


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only(monkeypatch, promises.rejected)
    monkeypatch.setenv("CLUSTER_KIT_AMQP_URL", "amqp://127.0.0.1:1/")
    monkeypatch.setenv("CLUSTER_KIT_WORKER_MODE", "-")
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__TIMEOUT", "0.000001")
    monkeypatch.setenv("CLUSTER_KIT_NO_SUCH_THING", "1")
    (tmp_path / ".env").write_text("CLUSTER_KIT_CONNECT_TIMEOUT=soon\n")

    outcome = run_command("demo", "--json")

    assert outcome.code == 0
    ((proved, happened),) = rows(outcome).values()
    assert proved
    assert "this customer has left" in happened


async def succeed(workload: Workload, delivery: Delivery) -> None:
    """What no handler of the demo that is to fail would do."""


@pytest.mark.parametrize(
    ("prove", "method", "happened"),
    [
        (promises.retried, "_flaky", "its attempts were 1"),
        (promises.rejected, "_reject", "no dead letter within 1 s"),
        (promises.timed_out, "_hang", "no dead letter within 1 s"),
        (promises.snoozed, "_snooze", "it did not snooze"),
        (promises.killer_taken_out, "_kill", "instance-1 lives on"),
        (promises.dead_and_replayed, "_until_fixed", "no dead letter within 1 s"),
    ],
)
def test_a_promise_is_broken_when_something_else_happens(
    monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object], method: str, happened: str
) -> None:
    only(monkeypatch, prove, patience=1.0)
    monkeypatch.setattr(Workload, method, succeed)

    outcome = run_command("demo", "--json")

    assert outcome.code == 1
    assert list(rows(outcome).values()) == [(False, happened)]
    assert "... BROKEN in" in outcome.err
    assert outcome.err.endswith("cluster-kit: 1 of 1 promises broken\n")


def test_a_crash_that_is_none_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, promises.crash_survived, patience=1.0)
    monkeypatch.setattr(MemoryEventQueue, "disconnect", lambda queue, reason: None)

    outcome = run_command("demo", "--json")

    assert list(rows(outcome).values()) == [(False, "not all of 1 tasks were done within 1 s")]


def test_a_killer_that_is_not_taken_out_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, promises.killer_taken_out, patience=1.0)
    monkeypatch.setattr("cluster_kit.cli.demo.stage.CRASH_LIMIT", 100)

    outcome = run_command("demo", "--json")

    assert list(rows(outcome).values()) == [(False, "no dead letter within 1 s")]


@pytest.mark.parametrize("prove", [promises.delays_in_order, promises.retried, promises.snoozed])
def test_a_delay_that_takes_too_long_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object]
) -> None:
    only(monkeypatch, prove)
    monkeypatch.setattr(promises, "LATE", -promises.EARLY)

    ((proved, happened),) = rows(run_command("demo", "--json")).values()

    assert not proved
    assert happened.endswith(" s late") or happened.startswith("pauses of ")


def test_a_task_that_runs_twice_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, promises.shared_out)
    add = journal.Journal.add

    def twice(self: journal.Journal, event: journal.Event) -> None:
        add(self, event)
        if event.kind == "run" and len(self.events) < 5:
            add(self, event)

    monkeypatch.setattr(journal.Journal, "add", twice)

    ((proved, happened),) = rows(run_command("demo", "--json")).values()

    assert not proved
    assert happened.startswith("36 tasks ran ")
