"""What was found in the store for a key, and what may be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.cache.envelope import Kind, Record, head_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.cache.versions import Versions


class Found(NamedTuple):
    """What the store has for a key.

    Attributes:
        record: a value that counts, be it over; None for none.
        expected: how what is stored there begins; None when there is nothing.
        promised: until when somebody loads it, seconds since 1970.
        versions: epoch and tags as they were at that time.
    """

    record: Record | None
    expected: bytes | None
    promised: float
    versions: Versions


class Promise(NamedTuple):
    """That a key is being loaded.

    Attributes:
        body: what the store is to hold.
        life: seconds it is to hold it; None for ever.
    """

    body: bytes
    life: float | None

    @property
    def head(self) -> bytes:
        """Return what `fill`, `prolong` and `withdraw` expect."""
        return head_of(self.body)


def fresh(record: Record, now: float) -> bool:
    """Whether the value of a record is not over."""
    left = record.left(now)
    return left is None or left > 0


def usable(record: Record, now: float) -> bool:
    """Whether it may stand in for a value that cannot be loaded."""
    left = record.left(now)
    return left is None or left + record.grace > 0


def judged(
    record: Record | None,
    body: bytes | None,
    versions: Versions,
    current: Mapping[str, bytes | None],
) -> Found:
    """Return what there is for a key, by the versions its tags have now."""
    counts = record is not None and all(
        current[tag] == version for tag, version in record.tags.items()
    )
    return Found(
        record=record if counts and record is not None and record.kind == Kind.VALUE else None,
        expected=None if body is None else head_of(body),
        promised=record.promised if counts and record is not None else 0.0,
        versions=versions,
    )
