"""The versions that entries stand on: of the whole cache, its epoch, and of each tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.cache.envelope import STAMP_BYTES, head_of, new_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cluster_kit.cache.guard import Guard
    from cluster_kit.cache.names import Names

TAG_LIFE = 30 * 24 * 3600.0
"""Seconds the store keeps the version of a tag that nobody invalidates, as long as the longest ttl.
An entry that stands on one that is gone is a miss."""

MAX_VERSIONS = 10_000
"""Tags whose version is remembered, to be confirmed with the next write."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What an entry stands on."""

    epoch: bytes
    tags: Mapping[str, bytes]


class VersionBook:
    """Reads the versions of one cache, makes those that are missing, remembers them.

    Args:
        guard: the store.
        names: of its keys.

    Attributes:
        epoch: as it was last read or written; None before that.
    """

    def __init__(self, guard: Guard, names: Names) -> None:
        self._guard = guard
        self._names = names
        self._known: dict[str, bytes] = {}
        self.epoch: bytes | None = None

    def remember(self, versions: Mapping[str, bytes]) -> None:
        """Take these for the versions of tags, until the store says otherwise."""
        if len(self._known) + len(versions) > MAX_VERSIONS:
            self._known.clear()
        self._known.update(versions)

    def forget(self, tags: Iterable[str]) -> None:
        """Take them for nothing any more."""
        for tag in tags:
            self._known.pop(tag, None)

    def remembered(self, tags: Sequence[str]) -> Versions | None:
        """Return what is probably still so; None when anything is unknown."""
        if self.epoch is None or any(tag not in self._known for tag in tags):
            return None
        return Versions(self.epoch, {tag: self._known[tag] for tag in tags})

    async def current(self, tags: Sequence[str]) -> Versions:
        """Read the versions."""
        return await self.complete(tags, await self._guard.read(self._places(tags)))

    async def complete(self, tags: Sequence[str], marks: Sequence[bytes | None]) -> Versions:
        """Return the versions of an answer, and make those it lacks; whoever comes first does.

        What is there and cannot be a version, which nobody here has written, counts as missing.
        """
        places = self._places(tags)
        current = list(marks)
        while not all(map(_is_version, current)):
            for place, mark in zip(places, current, strict=True):
                if not _is_version(mark):
                    life = None if place == self._names.epoch else TAG_LIFE
                    expected = None if mark is None else head_of(mark)
                    await self._guard.swap(place, new_stamp(), expected, life)
            current = await self._guard.read(places)
        epoch, *versions = (mark for mark in current if mark is not None)
        self.epoch = epoch
        found = dict(zip(tags, versions, strict=True))
        self.remember(found)
        return Versions(epoch, found)

    def _places(self, tags: Sequence[str]) -> list[str]:
        return [self._names.epoch, *map(self._names.tag, tags)]


def _is_version(mark: bytes | None) -> bool:
    return mark is not None and len(mark) == STAMP_BYTES
