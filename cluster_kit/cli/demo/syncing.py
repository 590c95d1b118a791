"""Sync messages of a transaction: what is promised about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster_kit.cli.demo.broadcasts import SYNCED
from cluster_kit.cli.demo.journal import require
from cluster_kit.cli.demo.promise import Promise

if TYPE_CHECKING:
    from cluster_kit.cli.demo.stage import Stage

COMMITTED, ROLLED_BACK, MARK = "committed", "rolled back", "mark"


class Transaction:
    """One of whatever library has these hooks; those of SQLAlchemy need no hooks."""

    def __init__(self) -> None:
        self._committed: list[Callable[[], None]] = []
        self._rolled_back: list[Callable[[], None]] = []

    def on_commit(self, call: Callable[[], None]) -> None:
        """Have `call` called after the commit."""
        self._committed.append(call)

    def on_rollback(self, call: Callable[[], None]) -> None:
        """Have `call` called after a rollback."""
        self._rolled_back.append(call)

    def commit(self) -> None:
        """End it well."""
        for call in self._committed:
            call()

    def roll_back(self) -> None:
        """End it as if it had never been."""
        for call in self._rolled_back:
            call()


async def after_commit(stage: Stage) -> str:
    """What is published in a transaction is heard after its commit, or never.

    Messages of one publisher are heard in order: once a mark is heard, so is all before it.
    """
    kept, dropped = Transaction(), Transaction()
    publish = stage.client.sync_messages.publish
    await publish(SYNCED, {"number": 1, "text": COMMITTED}, transaction=kept)
    await publish(SYNCED, {"number": 2, "text": ROLLED_BACK}, transaction=dropped)
    await _mark(stage, 3)
    early = _heard(stage, COMMITTED) + _heard(stage, ROLLED_BACK)
    require(early == 0, f"heard {early} times before the commit")
    dropped.roll_back()
    kept.commit()
    instances = len(stage.names)
    await stage.journal.until(
        lambda: _heard(stage, COMMITTED) >= instances, "not every instance heard what was committed"
    )
    await _mark(stage, 4)
    late, never = _heard(stage, COMMITTED), _heard(stage, ROLLED_BACK)
    require(late == instances, f"what was committed was heard {late} times by {instances}")
    require(never == 0, f"what was rolled back was heard {never} times")
    return f"heard by {early} before the commit, by {late} after it; rolled back: by {never}"


SYNCING = (Promise("a transaction tells after its commit, or never", after_commit),)


async def _mark(stage: Stage, number: int) -> None:
    await stage.client.sync_messages.publish(SYNCED, {"number": number, "text": MARK})
    await stage.journal.until(
        lambda: all(
            any(event.number == number for event in stage.journal.on("heard", SYNCED, name))
            for name in stage.names
        ),
        "not every instance heard what was sent at once",
    )


def _heard(stage: Stage, text: str) -> int:
    events = stage.journal.on("heard", SYNCED)
    return sum(event.detail == text and event.instance in stage.names for event in events)
