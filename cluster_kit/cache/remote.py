"""What instances share: the entries of one cache in its store, and the versions they stand on.

An entry counts as long as the cache's epoch and the versions of its tags are those it was made
under. So all of them, or all with a tag, are invalidated by one write, without looking for them.

A value that was loaded is only stored over the promise its loader left there before it began to
load. Whatever invalidates the key meanwhile takes the promise away, and with it the right to store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.cache.counted import CountedBook, version_of
from cluster_kit.cache.envelope import (
    CorruptEntryError,
    Kind,
    Record,
    new_stamp,
    pack,
    removed_value,
    unpack,
)
from cluster_kit.cache.found import Promise, fresh, judged
from cluster_kit.cache.versions import VersionBook, Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster_kit.cache.found import Found
    from cluster_kit.cache.guard import Guard
    from cluster_kit.cache.names import Names
    from cluster_kit.clock import Clock

_WRITES = 5  # of one value, while others change its versions


class Remote:
    """The entries of one cache in its store.

    Every method that asks the store raises `CacheUnavailable` when it does not answer.

    Args:
        guard: the store.
        names: of its keys.
        clock: tells the time.
        corrupt: called with a key whose bytes are no entry.
    """

    def __init__(
        self, guard: Guard, names: Names, clock: Clock, corrupt: Callable[[str], None]
    ) -> None:
        self._guard = guard
        self._names = names
        self._clock = clock
        self._corrupt = corrupt
        self._versions = VersionBook(guard, names.epoch, names.tag)
        self._counted = CountedBook(guard, names.counted)

    @property
    def is_missed(self) -> bool:
        """Whether it is to be looked for: see `look`."""
        return self._guard.is_missed

    async def look(self) -> None:
        """Find out whether the store is back. Raises nothing."""
        await self._guard.look(self._names.epoch)

    # --- reading ---------------------------------------------------------------------------------

    async def read(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[Found]:
        """Return what there is for each key, in one round trip unless entries have tags."""
        names = self._names
        asked = [*map(names.entry, keys), names.epoch, *map(names.tag, tags)]
        answers = await self._guard.read(asked)
        bodies, marks = answers[: len(keys)], answers[len(keys) :]
        versions = await self._versions.complete(tags, marks)
        records = [
            self._unpack(key, body, versions) for key, body in zip(keys, bodies, strict=True)
        ]
        others = {tag for record in records if record for tag in record.tags} - {*tags}
        current: Mapping[str, bytes | None] = versions.tags
        if others:
            order = sorted(others)
            marks = await self._guard.read(map(names.tag, order))
            current = {**current, **dict(zip(order, marks, strict=True))}
        return [
            judged(record, body, versions, current)
            for record, body in zip(records, bodies, strict=True)
        ]

    def _unpack(self, key: str, body: bytes | None, versions: Versions) -> Record | None:
        if body is None:
            return None
        try:
            record = unpack(body)
        except CorruptEntryError:
            self._corrupt(key)
            return None
        return record if record.epoch == versions.epoch else None

    # --- writing ---------------------------------------------------------------------------------

    async def write(
        self, payloads: Mapping[str, bytes], *, ttl: float | None, grace: float, tags: Sequence[str]
    ) -> None:
        """Store values, whatever there was."""
        versions = self._versions.remembered(tags) or await self._versions.current(tags)
        marks = [self._names.epoch, *map(self._names.tag, tags)]
        for _ in range(_WRITES):
            bodies = {
                self._names.entry(key): pack(self._value(versions, ttl, grace, payload))
                for key, payload in payloads.items()
            }
            life = None if ttl is None else ttl + grace
            answers = await self._guard.write(bodies, life, marks)
            if answers == [versions.epoch, *versions.tags.values()]:
                return
            versions = await self._versions.complete(tags, answers)

    def promised(self, found: Found, until: float) -> Promise:
        """Make a promise; a value that is there stays in it for others to use meanwhile."""
        stale = found.record
        if stale is None:
            made = self._value(found.versions, until - self._clock.wall(), 0.0)
            made = made._replace(kind=Kind.PROMISE)
        else:
            made = stale._replace(stamp=new_stamp())
        life = made.life if stale is None else self._until(stale, until)
        return Promise(pack(made._replace(promised=until)), life)

    async def promise(self, key: str, found: Found, promise: Promise) -> bool:
        """Promise to load a key; return whether nobody else does."""
        place = self._names.entry(key)
        done, _ = await self._guard.swap(place, promise.body, found.expected, promise.life)
        return done

    async def prolong(
        self, key: str, expected: bytes, found: Found, until: float
    ) -> tuple[bool, bool]:
        """Let a promise count for longer, if it is there. Returns as `withdraw`."""
        stamp = expected[4:]
        if found.record is None:
            ttl = until - self._clock.wall()
            made = self._value(found.versions, ttl, 0.0)._replace(kind=Kind.PROMISE, stamp=stamp)
            life = made.life
        else:
            made, life = found.record._replace(stamp=stamp), self._until(found.record, until)
        return await self._over(key, pack(made._replace(promised=until)), expected, life, found)

    async def fill(self, key: str, expected: bytes, payload: bytes, record: Record) -> bool:
        """Store what was loaded, unless the promise is not there any more.

        Returns:
            Whether it counts there: it was stored, and epoch and tags are still those it stands on.
        """
        body, place = pack(record._replace(payload=payload)), self._names.entry(key)
        marks = [self._names.epoch, *map(self._names.tag, record.tags)]
        done, now = await self._guard.swap(place, body, expected, record.life, marks)
        return done and now == [record.epoch, *record.tags.values()]

    async def withdraw(self, key: str, expected: bytes, found: Found) -> tuple[bool, bool]:
        """Take a promise back, if it is there; what it stood in front of stays.

        Returns:
            Whether it was there, and whether it counted: epoch and tags were those it was made on.
        """
        body: bytes | None = None
        life = None
        if found.record is not None:
            body, life = pack(found.record._replace(stamp=new_stamp())), self._left(found.record)
        return await self._over(key, body, expected, life, found)

    async def _over(
        self, key: str, body: bytes | None, expected: bytes, life: float | None, found: Found
    ) -> tuple[bool, bool]:
        tags = dict(found.versions.tags)
        if found.record is not None:
            tags.update(found.record.tags)
        marks = [self._names.epoch, *map(self._names.tag, tags)]
        done, now = await self._guard.swap(self._names.entry(key), body, expected, life, marks)
        return done, done and now == [found.versions.epoch, *tags.values()]

    async def replace(
        self, key: str, found: Found, payload: bytes, *, ttl: float | None, grace: float
    ) -> bool:
        """Store another value over what was found, and only over that. Tags and `grace` stay."""
        tags: Mapping[str, bytes] = found.record.tags if found.record else {}
        grace = found.record.grace if found.record else grace
        base = self._value(Versions(found.versions.epoch, tags), ttl, grace)
        body = pack(base._replace(payload=payload))
        done, _ = await self._guard.swap(self._names.entry(key), body, found.expected, base.life)
        return done

    def value(self, found: Found, ttl: float | None, grace: float, tags: Sequence[str]) -> Record:
        """Return a record of a value that is loaded on what was found."""
        versions = found.versions
        chosen = {tag: versions.tags[tag] for tag in tags}
        return self._value(Versions(versions.epoch, chosen), ttl, grace)

    # --- invalidating ----------------------------------------------------------------------------

    async def remove(self, keys: Sequence[str]) -> int:
        """Remove entries and whatever promises there are; return how many were values."""
        heads = await self._guard.remove([self._names.entry(key) for key in keys])
        now = self._clock.wall()
        return sum(removed_value(head, self._versions.epoch, now) for head in heads)

    async def bump(self, tags: Sequence[str]) -> None:
        """Let no entry with any of these tags count any more."""
        await self._versions.renew(tags)

    async def reset(self) -> None:
        """Let no entry count any more."""
        await self._versions.renew_epoch()

    async def reset_counters(self, ids: Sequence[str], *, although_resting: bool = True) -> None:
        """Let no counter count any more, unless all resets with these ids were carried out."""
        await self._counted.reset(ids, although_resting=although_resting)

    # --- counting --------------------------------------------------------------------------------

    async def increment(self, key: str, amount: int, ttl: float | None) -> int:
        """Add to a counter and return it."""
        marks = [self._names.counted]
        version = self._counted.version or await self._counted.current()
        while True:
            name = self._names.counter(key, version)
            count, [mark] = await self._guard.increment(name, amount, ttl, marks)
            if version_of(mark) == version:
                return count
            version = await self._counted.complete(mark)

    async def count(self, key: str, *, clear: bool = False) -> int:
        """Return a counter, 0 where there is none; with `clear` remove it."""
        version = await self._counted.there()
        if version is None:
            return 0
        name = self._names.counter(key, version)
        answer = self._guard.remove([name], once=True) if clear else self._guard.read([name])
        [digits] = await answer
        try:
            return int(digits or b"0")
        except ValueError:
            self._corrupt(key)
            return 0

    async def keys(self, has_value: Callable[[str, Record], bool]) -> list[str]:
        """Return the keys of all values that count, and can be read as `has_value` says."""
        names = await self._guard.keys(self._names.entries)
        keys = [name.removeprefix(self._names.entries) for name in names]
        now = self._clock.wall()
        found: list[str] = []
        for at in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[at : at + _KEYS_AT_ONCE]
            states = await self.read(some)
            found += [
                key
                for key, state in zip(some, states, strict=True)
                if state.record is not None
                and fresh(state.record, now)
                and has_value(key, state.record)
            ]
        return sorted(found)

    # --- records ---------------------------------------------------------------------------------

    def _value(
        self, versions: Versions, ttl: float | None, grace: float, payload: bytes = b""
    ) -> Record:
        return Record(
            kind=Kind.VALUE,
            epoch=versions.epoch,
            created=self._clock.wall(),
            ttl=ttl,
            grace=grace,
            promised=0.0,
            tags=versions.tags,
            payload=payload,
            stamp=new_stamp(),
        )

    def _until(self, record: Record, until: float) -> float | None:
        """Return how long the store is to hold a promise in front of a value."""
        left = self._left(record)
        return None if left is None else max(left, until - self._clock.wall())

    def _left(self, record: Record) -> float | None:
        left = record.left(self._clock.wall())
        return None if left is None else max(0.001, left + record.grace)


_KEYS_AT_ONCE = 500
