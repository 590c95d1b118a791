"""Objects that are changed field by field, and what there is to say about values."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from cluster_kit.cache.changes import Change
from cluster_kit.cache.found import fresh
from cluster_kit.cache.values import MISSING
from cluster_kit.errors import CacheUnavailable, ConfigurationError

if TYPE_CHECKING:
    from cluster_kit.cache.envelope import Record
    from cluster_kit.cache.found import Found
    from cluster_kit.cache.invalidation import Invalidation
    from cluster_kit.cache.local import Entry
    from cluster_kit.cache.remote import Remote
    from cluster_kit.cache.tools import Tools
    from cluster_kit.cache.values import Values

ATTEMPTS = 1_000
"""To change an object that others change, too."""

_PAUSE = 0.002

Fields = dict[str, object]


class Objects:
    """Changes the objects of one cache.

    Args:
        values: how they are kept.
        invalidation: tells others of changes.
        tools: what it needs.
    """

    def __init__(self, values: Values, invalidation: Invalidation, tools: Tools) -> None:
        self._name = tools.options.name
        self._shelf = tools.shelf
        self._values = values
        self._invalidation = invalidation
        self._clock = tools.clock
        self._random = tools.random

    @staticmethod
    def look_up(value: object, key: str, field: str, default: object) -> object:
        """Return a field of an object.

        Raises:
            ConfigurationError: it is no object.
        """
        return default if value is MISSING else _fields(value, key).get(field, default)

    async def change(self, key: str, field: str, value: object, *, create: bool = False) -> bool:
        """Set a field, or with `MISSING` remove it; return whether there was anything to change.

        Where the key has no value that is only so with `create`, which begins with no fields.

        Raises:
            ConfigurationError: the value of `key` is no object.
            CacheUnavailable: the store did not answer, or others changed it all the time; or there
                is none, and other instances could not be told.
        """
        with self._invalidation.calls:
            change = Change(keys=(key,))
            changed = await self._change(change, field, value, create=create)
            if changed:
                await self._invalidation.announce(change)
        return changed

    async def _change(self, change: Change, field: str, value: object, *, create: bool) -> bool:
        remote, [key] = self._shelf.remote, change.keys
        if remote is None:
            return self._change_here(key, field, value, create=create)
        try:
            changed = await self._change_there(remote, key, field, value, create=create)
        except (CacheUnavailable, asyncio.CancelledError):
            self._invalidation.doubt(change)
            raise
        self._invalidation.forget(change)
        return changed

    def _change_here(self, key: str, field: str, value: object, *, create: bool) -> bool:
        entry = self._here(key)
        if entry is None and not create:
            return False
        fields = {} if entry is None else _fields(entry.value, key)
        if value is MISSING and field not in fields:
            return False
        changed = _changed(fields, field, value)
        now = self._clock.monotonic()
        ttl = self._shelf.lifetime(None)
        if entry is not None:
            ttl = None if entry.expires == inf else entry.expires - now
        tags = () if entry is None else tuple(entry.tags)
        made = self._shelf.entry(changed, self._values.encode(key, changed), ttl, tags)
        self._invalidation.forget(Change(keys=(key,)))
        self._shelf.local.put(key, made)
        return True

    async def _change_there(
        self, remote: Remote, key: str, field: str, value: object, *, create: bool
    ) -> bool:
        for _ in range(ATTEMPTS):
            found = await self._found(remote, key)
            fields, ttl = self._read(found, key)
            if fields is None and not create:
                return False
            if value is MISSING and field not in (fields or {}):
                return False
            payload = self._values.encode(key, _changed(fields or {}, field, value))
            if await remote.replace(key, found, payload, ttl=ttl, grace=self._shelf.grace):
                return True
            await self._clock.sleep(self._random.uniform(0, _PAUSE))
        raise CacheUnavailable(self._name, f"others change {key!r} all the time")

    def _read(self, found: Found, key: str) -> tuple[Fields | None, float | None]:
        """Return what there is, None for nothing, and how long it is to count."""
        now, record = self._clock.wall(), found.record
        if record is None or not fresh(record, now):
            return None, self._shelf.lifetime(None)
        entry = self._shelf.adopt(key, record, None)
        if entry is None:  # bytes of somebody else
            return None, self._shelf.lifetime(None)
        return _fields(entry.value, key), record.left(now)

    # --- about values ----------------------------------------------------------------------------

    async def ttl(self, key: str) -> float | None:
        """Return the seconds a value still counts, None for ever.

        Raises:
            KeyError: there is none.
            CacheUnavailable: the store did not answer.
        """
        remote = self._shelf.remote
        if remote is None:
            entry = self._here(key)
            if entry is None:
                raise KeyError(key)
            return None if entry.expires == inf else entry.expires - self._clock.monotonic()
        found = await self._found(remote, key)
        now, record = self._clock.wall(), found.record
        if record is None or not fresh(record, now) or not self._has_value(key, record):
            raise KeyError(key)
        return record.left(now)

    async def keys(self) -> list[str]:
        """Return the keys that have a value, sorted. Raises as `ttl`, but for `KeyError`."""
        remote = self._shelf.remote
        if remote is None:
            return sorted(self._shelf.local.fresh())
        while True:
            told = self._shelf.owed.told
            keys = await remote.keys(self._counts)
            if self._shelf.owed.told == told:
                return keys

    def _here(self, key: str) -> Entry | None:
        """Return the value where there is no store; one that only stands in is none."""
        entry = self._shelf.held(key)
        return None if entry is None or entry.expires <= self._clock.monotonic() else entry

    async def _found(self, remote: Remote, key: str) -> Found:
        told = self._shelf.owed.told
        [found] = await remote.read([key])
        if self._shelf.is_owed(key, found.record, told):
            raise CacheUnavailable(self._name, f"the store is being told what changed of {key!r}")
        return found

    def _counts(self, key: str, record: Record) -> bool:
        shelf = self._shelf
        return not shelf.is_owed(key, record, shelf.owed.told) and self._has_value(key, record)

    def _has_value(self, key: str, record: Record) -> bool:
        return self._shelf.adopt(key, record, None) is not None


def _fields(value: object, key: str) -> Fields:
    if not isinstance(value, dict):
        raise ConfigurationError(f"the value of {key!r} is no object but {type(value).__name__}")
    return cast("Fields", value)


def _changed(fields: Fields, field: str, value: object) -> Fields:
    if value is MISSING:
        return {name: kept for name, kept in fields.items() if name != field}
    return {**fields, field: value}
