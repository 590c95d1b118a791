"""What instances under test have reported of their tasks, and assertions about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cluster_kit.message import DeadReason

PUBLISHED, DONE, DEAD = "task.published", "task.done", "task.dead"
_ENDS = frozenset({DONE, DEAD, "task.ack_remembered"})
_MOVES = frozenset({"task.started", "task.retried", "task.snoozed", "task.given_back"})


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event of one task; `fields` are those of the table of events."""

    name: str
    channel: str
    id: str
    fields: Mapping[str, object]


@dataclass(slots=True)
class History:
    """Events of the tasks of several instances, in order. `note` observes telemetry."""

    events: list[TaskEvent] = field(default_factory=list[TaskEvent])

    def note(self, event: str, fields: Mapping[str, object]) -> None:
        """Keep an event if it is one of a task."""
        if event.startswith("task."):
            channel, id_ = str(fields["channel"]), str(fields["id"])
            self.events.append(TaskEvent(event, channel, id_, dict(fields)))

    def ids(self, event: str, channel: str, **fields: object) -> list[str]:
        """Return the ids of which `event` was reported with these fields, each once, in order."""
        return list(
            dict.fromkeys(
                e.id
                for e in self.events
                if (e.name, e.channel) == (event, channel) and fields.items() <= e.fields.items()
            )
        )

    def channels(self) -> list[str]:
        """Return the channels on which anything happened."""
        return list(dict.fromkeys(event.channel for event in self.events))

    def open(self, channel: str) -> set[str]:
        """Return the ids that were published or moved, and have not ended since."""
        lives: dict[str, _Life] = {}
        for event in self.events:
            if event.channel == channel:
                lives.setdefault(event.id, _Life()).note(event.name)
        return {id_ for id_, life in lives.items() if life.open}


@dataclass(slots=True)
class _Life:
    """Of one task. One instance may report its end before another one that it is published."""

    published: int = 0
    ended: int = 0
    moving: bool = False

    def note(self, event: str) -> None:
        if event == PUBLISHED:
            self.published += 1
        elif event in _ENDS:
            self.ended, self.moving = min(self.ended, self.published) + 1, False
        elif event in _MOVES:
            self.moving = True

    @property
    def open(self) -> bool:
        return self.moving or self.published > self.ended


class Keeper(Protocol):
    """What keeps a history: a `ClusterFactory`."""

    history: History


def assert_published(
    harness: Keeper, channel: str, count: int | None = None, *, ids: Iterable[str] | None = None
) -> list[str]:
    """Assert that the instances of `harness` published tasks, and return the ids in order.

    Args:
        harness: the `cluster_factory`.
        channel: name without the app's prefix.
        count: exactly so many; None for at least one.
        ids: exactly these, in any order.

    Raises:
        AssertionError: they did not.
        TypeError: `ids` is one str.
    """
    return _expect(harness.history.ids(PUBLISHED, channel), "published", channel, count, ids)


def assert_processed(
    harness: Keeper, channel: str, count: int | None = None, *, ids: Iterable[str] | None = None
) -> list[str]:
    """Assert that handlers finished tasks well; otherwise as `assert_published`."""
    return _expect(harness.history.ids(DONE, channel), "processed", channel, count, ids)


def assert_dead_lettered(
    harness: Keeper,
    channel: str,
    count: int | None = None,
    *,
    ids: Iterable[str] | None = None,
    reason: str | None = None,
) -> list[str]:
    """Assert that instances dead-lettered tasks, for `reason` if given; else as the others.

    What a broker buried by itself, because its ttl ended in the queue, no instance has reported:
    look at `EventQueue.dead_letters`.

    Raises:
        AssertionError: they did not.
        ValueError: `reason` is none of `DeadReason`.
    """
    if reason is not None and reason not in set(DeadReason):
        raise ValueError(f"reason is one of {', '.join(DeadReason)}, not {reason!r}")
    history = harness.history
    found = history.ids(DEAD, channel, **({} if reason is None else {"reason": reason}))
    what = "dead-lettered" if reason is None else f"dead-lettered as {reason}"
    return _expect(found, what, channel, count, ids)


def _expect(
    found: list[str], what: str, channel: str, count: int | None, ids: Iterable[str] | None
) -> list[str]:
    if isinstance(ids, str):
        raise TypeError("ids is a list of message ids, not one str")
    seen = f"{len(found)} tasks of {channel!r} were {what}: {', '.join(found) or 'none'}"
    if ids is not None:
        expected = sorted(ids)
        assert sorted(found) == expected, f"{seen}; expected {', '.join(expected)}"
    if count is not None:
        assert len(found) == count, f"{seen}; expected {count}"
    assert found or count == 0 or ids is not None, seen
    return found
