"""The version all counters of a cache stand on, and the resets it was made for.

A reset that the store could not be told is owed to it by all who heard of it, and may be there
already: its answer was lost, or another has told it. So the store keeps which ones it knows. Each
is carried out once, however many tell it, and what was counted since stays.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import TYPE_CHECKING, TypeGuard

from cluster_kit.cache.changes import MOST_RESETS
from cluster_kit.cache.envelope import STAMP_BYTES, new_stamp
from cluster_kit.errors import CacheUnavailable
from cluster_kit.ports import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.cache.guard import Guard

_RESET_BYTES = 8
_TRIES = 10  # while others change it


class CountedBook:
    """Reads the version of the counters of one cache, makes it, and replaces it for resets.

    Every method raises `CacheUnavailable` when the store does not answer.

    Args:
        guard: the store.
        place: where the version is.

    Attributes:
        version: as it was last read or written; None before that.
    """

    def __init__(self, guard: Guard, place: str) -> None:
        self._guard = guard
        self._place = place
        self.version: bytes | None = None

    async def there(self) -> bytes | None:
        """Read the version; None where there is none, so that nothing stands on it."""
        [mark] = await self._guard.read([self._place])
        return version_of(mark)

    async def current(self) -> bytes:
        """Read the version, and make it where there is none; whoever comes first does."""
        [mark] = await self._guard.read([self._place])
        return await self.complete(mark)

    async def complete(self, mark: bytes | None) -> bytes:
        """As `current`, of what was read."""
        for _ in range(_TRIES):
            version = version_of(mark)
            if version is not None:
                self.version = version
                return version
            is_there = mark is not None  # and no version: nobody here has written it
            [mark] = await self._guard.renew([self._place], new_stamp, None, present=is_there)
        raise self._does_not_stay()

    async def reset(self, ids: Sequence[str], *, although_resting: bool) -> None:
        """Let no counter count any more, unless that was done for all of these resets.

        Args:
            ids: of the resets.
            although_resting: tell it also to a store that is left alone.
        """
        wanted = [*map(_known_by, reversed(ids[-MOST_RESETS:]))]
        for _ in range(_TRIES):
            [mark] = await self._guard.read([self._place], although_resting=although_resting)
            known = _resets_of(mark)
            if not {*wanted}.difference(known):
                self.version = version_of(mark)
                return
            resets = b"".join([*dict.fromkeys([*wanted, *known])][:MOST_RESETS])
            if await self._replace(mark, resets, although_resting=although_resting):
                return
        raise self._does_not_stay()

    async def _replace(self, mark: bytes | None, resets: bytes, *, although_resting: bool) -> bool:
        made, expected = new_stamp() + resets, mark and mark[:HEAD_BYTES]
        settle = self._guard.settle(self._place, made, expected, although_resting=although_resting)
        try:
            done = await settle
        except CacheUnavailable as exc:
            if not exc.refused:
                raise
            self.version = version_of(await self._replace_in_full(resets))
            return True
        if done:
            self.version = version_of(made)
        return done

    async def _replace_in_full(self, resets: bytes) -> bytes | None:
        """A store that is full may take what is no larger than before, and lets things go."""
        try:
            [mark] = await self._guard.renew(
                [self._place], lambda: new_stamp() + resets, None, present=True
            )
        except CacheUnavailable as exc:
            if not exc.refused:
                raise
            await self._guard.remove([self._place])
            return None
        return mark

    def _does_not_stay(self) -> CacheUnavailable:
        return CacheUnavailable(self._place, "the version of counters does not stay there")


def version_of(mark: bytes | None) -> bytes | None:
    """Return the version in what the store has; None when that is none."""
    return mark[:STAMP_BYTES] if _is_mark(mark) else None


def _resets_of(mark: bytes | None) -> list[bytes]:
    """Return what the resets are known by that a version was made for, the last first."""
    if not _is_mark(mark):
        return []
    starts = range(STAMP_BYTES, len(mark), _RESET_BYTES)
    return [mark[at : at + _RESET_BYTES] for at in starts]


def _is_mark(mark: bytes | None) -> TypeGuard[bytes]:
    if mark is None:
        return False
    resets, rest = divmod(len(mark) - STAMP_BYTES, _RESET_BYTES)
    return not rest and 0 <= resets <= MOST_RESETS


def _known_by(reset: str) -> bytes:
    return blake2s(reset.encode(), digest_size=_RESET_BYTES).digest()
