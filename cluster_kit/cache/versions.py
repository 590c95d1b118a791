"""The versions that entries stand on: of the whole cache, its epoch, and of each tag.

An invalidation gives what it concerns another version, which there never was before. A version that
is gone invalidates, too, for nothing stands on the one that is made in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from cluster_kit.cache.envelope import STAMP_BYTES, new_stamp
from cluster_kit.errors import CacheUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cluster_kit.cache.guard import Guard

TAG_LIFE = 30 * 24 * 3600.0
"""Seconds the store keeps the version of a tag that nobody invalidates, as long as the longest ttl.
An entry that stands on one that is gone is a miss."""

_MAKES = 10  # of versions, before it is plain that the store does not keep them

MAX_VERSIONS = 10_000
"""Tags whose version is remembered, to be confirmed with the next write."""


class Versions(NamedTuple):
    """What an entry stands on."""

    epoch: bytes
    tags: Mapping[str, bytes]


class VersionBook:
    """Reads the versions of one cache, makes those that are missing, remembers them.

    Args:
        guard: the store.
        place: where the epoch is.
        tag: returns where the version of a tag is.

    Attributes:
        place: see there.
        epoch: as it was last read or written; None before that.
    """

    def __init__(self, guard: Guard, place: str, tag: Callable[[str], str]) -> None:
        self._guard = guard
        self.place: str = place
        self._tag = tag
        self._known: dict[str, bytes] = {}
        self.epoch: bytes | None = None

    def remember(self, versions: Mapping[str, bytes]) -> None:
        """Take these for the versions of tags, until the store says otherwise."""
        if len(self._known) + len(versions) > MAX_VERSIONS:
            self._known.clear()
        self._known.update(versions)

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
        versions = [mark for mark in marks if _is_version(mark)]
        if len(versions) < len(marks):
            versions = await self._whole(self._places(tags), marks)
        self.epoch = versions[0]
        found = dict(zip(tags, versions[1:], strict=True))
        self.remember(found)
        return Versions(self.epoch, found)

    async def _whole(self, places: Sequence[str], marks: Sequence[bytes | None]) -> list[bytes]:
        current = dict(zip(places, marks, strict=True))
        for _ in range(_MAKES):
            lacking = {p: mark for p, mark in current.items() if not _is_version(mark)}
            if not lacking:
                return [mark for mark in current.values() if mark is not None]
            for present in (False, True):
                some = [p for p, mark in lacking.items() if (mark is not None) == present]
                current.update(await self._make(some, present=present))
        raise CacheUnavailable(self.place, "the versions that are made do not stay there")

    async def renew_epoch(self) -> None:
        """Let nothing count any more, by one write.

        Raises:
            CacheUnavailable: the store did not answer.
        """
        self.epoch = (await self._renew([self.place], None))[self.place]

    async def renew(self, tags: Sequence[str]) -> None:
        """Let nothing with any of these tags count any more. Raises as `renew_epoch`."""
        marks = await self._renew(list(map(self._tag, tags)), TAG_LIFE)
        for tag in tags:
            self._known.pop(tag, None)
        self.remember({tag: mark for tag in tags if (mark := marks[self._tag(tag)]) is not None})

    async def _renew(self, places: Sequence[str], life: float | None) -> Mapping[str, bytes | None]:
        """Replace versions; where there is none, nothing counts."""
        try:
            found = await self._guard.renew(places, new_stamp, life, present=True)
        except CacheUnavailable as exc:
            if not exc.refused:
                raise
            await self._guard.remove(places)  # a store that is full allows that
            return dict.fromkeys(places)
        return dict(zip(places, found, strict=True))

    async def _make(
        self, places: Sequence[str], *, present: bool
    ) -> Iterator[tuple[str, bytes | None]]:
        """Return versions that were made: in place of what is none, or where nothing is."""
        epoch, tags = [self.place] * (self.place in places), [*places]
        if epoch:
            tags.remove(self.place)
        made = await self._guard.renew(epoch, new_stamp, None, present=present)
        made += await self._guard.renew(tags, new_stamp, TAG_LIFE, present=present)
        return zip([*epoch, *tags], made, strict=True)

    def _places(self, tags: Sequence[str]) -> list[str]:
        return [self.place, *map(self._tag, tags)]


def _is_version(mark: bytes | None) -> TypeGuard[bytes]:
    return mark is not None and len(mark) == STAMP_BYTES
