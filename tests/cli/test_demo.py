from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cluster_kit.cache import Cache
from cluster_kit.cli.demo import broadcasts, caching, journal, locking, syncing, tasks
from cluster_kit.cli.demo.broadcasts import Hearing, News
from cluster_kit.cli.demo.promise import EARLY
from cluster_kit.cli.demo.promises import PROMISES
from cluster_kit.cli.demo.syncing import Transaction
from cluster_kit.cli.demo.task_handlers import TaskHandlers
from cluster_kit.locks import Lease, LockManager
from cluster_kit.message import Delivery
from cluster_kit.sync_messages import SyncMessageManager
from cluster_kit_memory.event_queue import MemoryEventQueue
from cluster_kit_memory.locks import MemoryLocks
from tests.cli.support import Outcome, run_command

pytestmark = pytest.mark.slow


def rows(outcome: Outcome) -> dict[str, tuple[bool, str]]:
    return {row["promise"]: (row["proved"], row["happened"]) for row in outcome.json}


def only(
    monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object], patience: float = 15.0
) -> None:
    chosen = tuple(promise for promise in PROMISES if promise.prove is prove)
    monkeypatch.setattr("cluster_kit.cli.demo.PROMISES", chosen)
    monkeypatch.setattr(journal.Journal, "patience", patience)


def test_every_promise_is_proved() -> None:
    outcome = run_command("demo", "--instances", "2")

    lines = outcome.out.splitlines()
    assert outcome.code == 0, outcome.out
    assert lines[0].split() == ["promise", "what", "happened", "proved"]
    assert len(lines) == 1 + len(PROMISES)
    assert all(line.endswith("  yes") for line in lines[1:])
    assert outcome.err.startswith("2 instances, objects of one process\n")
    assert outcome.err.count("... proved in") == len(PROMISES)


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only(monkeypatch, tasks.rejected)
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


async def succeed(handlers: TaskHandlers, delivery: Delivery) -> None:
    """What no handler of the demo that is to fail would do."""


@pytest.mark.parametrize(
    ("prove", "method", "happened"),
    [
        (tasks.retried, "_flaky", "its attempts were 1"),
        (tasks.rejected, "_reject", "no dead letter within 1 s"),
        (tasks.timed_out, "_hang", "no dead letter within 1 s"),
        (tasks.snoozed, "_snooze", "it did not snooze"),
        (tasks.killer_taken_out, "_kill", "instance-1 lives on"),
        (tasks.dead_and_replayed, "_until_fixed", "no dead letter within 1 s"),
    ],
)
def test_a_promise_is_broken_when_something_else_happens(
    monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object], method: str, happened: str
) -> None:
    only(monkeypatch, prove, patience=1.0)
    monkeypatch.setattr(TaskHandlers, method, succeed)

    outcome = run_command("demo", "--json")

    assert outcome.code == 1
    assert list(rows(outcome).values()) == [(False, happened)]
    assert "... BROKEN in" in outcome.err
    assert outcome.err.endswith("cluster-kit: 1 of 1 promises broken\n")


def test_a_crash_that_is_none_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, tasks.crash_survived, patience=1.0)
    monkeypatch.setattr(MemoryEventQueue, "disconnect", lambda queue, reason: None)

    outcome = run_command("demo", "--json")

    assert list(rows(outcome).values()) == [(False, "not all of 1 tasks were done within 1 s")]


def proved_nothing(monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object]) -> str:
    """Run the demo of one promise that has to be broken, and return what happened instead."""
    only(monkeypatch, prove, patience=1.0)

    outcome = run_command("demo", "--json")

    ((proved, happened),) = rows(outcome).values()
    assert (outcome.code, proved) == (1, False)
    return happened


def test_a_message_that_one_instance_never_hears_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hear = Hearing._heard

    async def deaf(self: Hearing, channel: str, message: News) -> None:
        if self._cluster.instance_id != "instance-2" or message.number != 7:
            await hear(self, channel, message)

    monkeypatch.setattr(Hearing, "_heard", deaf)

    assert proved_nothing(monkeypatch, broadcasts.reaches_everyone) == (
        "instance-2 heard 99 messages; the first that is wrong is number 7"
    )


def test_a_gap_that_is_not_told_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep_quiet(self: Hearing, channel: str, channels: list[str]) -> None: ...

    monkeypatch.setattr(Hearing, "_gap", keep_quiet)

    assert proved_nothing(monkeypatch, broadcasts.gaps_are_told) == (
        "instance-3 missed 20 messages and was not told within 1 s"
    )


def test_a_message_sent_before_the_commit_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish = SyncMessageManager.publish

    async def at_once(
        self: SyncMessageManager, channel: str, message: object, *, transaction: object = None
    ) -> str:
        return await publish(self, channel, message)

    monkeypatch.setattr(SyncMessageManager, "publish", at_once)

    assert proved_nothing(monkeypatch, syncing.after_commit) == "heard 6 times before the commit"


def test_a_message_sent_after_a_rollback_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Transaction, "roll_back", Transaction.commit)

    assert proved_nothing(monkeypatch, syncing.after_commit) == (
        "what was rolled back was heard 3 times"
    )


def test_a_load_for_each_caller_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(self: Cache, key: str, fn: Callable[[], Awaitable[str]]) -> str:
        return await fn()

    monkeypatch.setattr(Cache, "wrap", load)

    happened = proved_nothing(monkeypatch, caching.loaded_once)
    assert happened == f"one instance loaded {caching.CALLERS} times"


def test_a_value_that_stays_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stay(self: Cache, key: str) -> bool:
        return True

    monkeypatch.setattr(Cache, "delete", stay)
    monkeypatch.setattr(caching, "LATE", 0.1)

    assert proved_nothing(monkeypatch, caching.invalidated) == (
        "the old value was still there after 0.1 s"
    )


def test_an_error_of_an_instance_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Cache, key: str) -> bool:
        raise RuntimeError("nobody could be told")

    monkeypatch.setattr(Cache, "delete", fail)

    assert proved_nothing(monkeypatch, caching.invalidated) == (
        "instance-3: delete: RuntimeError: nobody could be told"
    )


def test_a_lock_that_lets_all_in_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = LockManager.hold
    numbers = iter(range(1000))

    def anybody(self: LockManager, key: str) -> AbstractAsyncContextManager[Lease]:
        return hold(self, f"{key}-{next(numbers)}")

    monkeypatch.setattr(LockManager, "hold", anybody)

    assert "times two were inside" in proved_nothing(monkeypatch, locking.one_at_a_time)


def test_a_holder_that_keeps_what_it_lost_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryLocks, "disconnect", lambda locks, reason: None)

    assert proved_nothing(monkeypatch, locking.loss_is_told) == (
        "instance-1 never entered the lock within 1 s"
    )


def test_a_cut_is_the_end_of_every_connection_of_a_process() -> None:
    program = """
import socket
from cluster_kit.cli.demo.severing import sever

with socket.create_server(("127.0.0.1", 0)) as server:
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    sever()
    print(client.recv(1), accepted.recv(1))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout == "b'' b''\n"


def test_a_killer_that_is_not_taken_out_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, tasks.killer_taken_out, patience=1.0)
    monkeypatch.setattr("cluster_kit.cli.demo.settings.CRASH_LIMIT", 100)

    outcome = run_command("demo", "--json")

    assert list(rows(outcome).values()) == [(False, "no dead letter within 1 s")]


@pytest.mark.parametrize("prove", [tasks.delays_in_order, tasks.retried, tasks.snoozed])
def test_a_delay_that_takes_too_long_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch, prove: Callable[..., object]
) -> None:
    only(monkeypatch, prove)
    monkeypatch.setattr(tasks, "LATE", -EARLY)

    ((proved, happened),) = rows(run_command("demo", "--json")).values()

    assert not proved
    assert happened.endswith(" s late") or happened.startswith("pauses of ")


def test_a_task_that_runs_twice_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, tasks.shared_out)
    add = journal.Journal.add

    def twice(self: journal.Journal, event: journal.Event) -> None:
        add(self, event)
        if event.kind == "run" and len(self.events) < 5:
            add(self, event)

    monkeypatch.setattr(journal.Journal, "add", twice)

    ((proved, happened),) = rows(run_command("demo", "--json")).values()

    assert not proved
    assert happened.startswith("36 tasks ran ")
