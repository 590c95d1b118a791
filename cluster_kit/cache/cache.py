"""A cache, as its users see it."""

from __future__ import annotations

from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.cache.changes import Change
from cluster_kit.cache.options import (
    check_amount,
    check_field,
    check_key,
    check_tags,
    check_ttl,
    check_values,
)
from cluster_kit.cache.recipe import Recipe, by_name
from cluster_kit.cache.values import MISSING
from cluster_kit.cache.wrapping import Wrapping
from cluster_kit.checks import truth
from cluster_kit.errors import ConfigurationError, EncodeError
from cluster_kit.names import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cluster_kit.cache.engine import Engine
    from cluster_kit.cache.stats import CacheStats
    from cluster_kit.clock import Duration

T = TypeVar("T")


class Cache(Wrapping):
    """Values by key, kept in this process, in a store, or both. Got from `Cluster.caches`.

    None, 0, "", False and [] are values as any other; a miss is a miss. A value is what its JSON
    says, unless the cache was made with ``copy="none"``. A `ttl` is in seconds, above 0; None
    leaves it to the cache. Keys are 1 to 200 bytes of UTF-8 without spaces, control characters,
    ``*`` and ``#``. What is wrong of these is a `ConfigurationError`, which is a `ValueError`, on
    every store alike. A store that does not answer is a miss to who reads, and a
    `CacheUnavailable` to who writes. Every call raises `TopologyError` as long as the broker has
    something else under a name that this needs, found by the first one.
    """

    # --- single values -------------------------------------------------------------------

    async def get(self, key: str, default: object = None) -> object:
        """Return a value, or `default` when there is none; `MISSING` tells a miss from None."""
        entry = self._hot.get(key) if type(key) is str else None
        if (
            entry is not None
            and entry.until > self._monotonic()
            and get_ident() == self._thread  # the running loop would be dearer to ask
        ):
            entry.used = True
            self._quick_hits += 1
            return entry.value if entry.copier is None else entry.copier()
        return (await self.mget(key, default=default))[0]

    async def set(
        self, key: str, value: object, ttl: Duration | None = None, *, tags: Iterable[str] = ()
    ) -> None:
        """Store a value, whatever there was.

        Raises:
            EncodeError: it has no JSON form, or is nested more than 200 levels deep.
            MessageTooLargeError: it is larger than the settings or the store allow.
            CacheUnavailable: the store did not answer, it may be stored; or there is none, and
                other instances could not be told to forget theirs: they will be, unless the
                cluster stops.
        """
        await self._put({check_key(key): value}, ttl, tags)

    async def delete(self, key: str) -> bool:
        """Invalidate a key: no value from before this call is served any more, nor stored.

        Loads that began before are not stored, here or elsewhere. The documentation has a table
        of how long another instance may still see the old value.

        Returns:
            Whether there was a value, as far as known.

        Raises:
            CacheUnavailable: neither the store nor other instances could be told; they will be,
                unless the cluster stops.
        """
        return await self.mdel(key) > 0

    async def ttl(self, key: str) -> float | None:
        """Return the seconds a value still counts, None for ever.

        Raises:
            KeyError: there is no value.
            CacheUnavailable: the store did not answer.
        """
        engine = await self._open()
        return await engine.objects.ttl(check_key(key))

    # --- several values ------------------------------------------------------------------

    async def mget(self, *keys: str, default: object = None) -> list[object]:
        """Return the values of `keys` in order, `default` for each that is missing."""
        checked = [check_key(key) for key in keys]
        engine = await self._open()
        values = await engine.shelf.fetch(checked) if checked else {}
        return [values.get(key, default) for key in checked]

    async def mset(
        self,
        values: Mapping[str, object],
        ttl: Duration | None = None,
        *,
        tags: Iterable[str] = (),
    ) -> None:
        """Store several values, each as `set` does. Raises as it does."""
        await self._put(check_values(values), ttl, tags)

    async def _put(
        self, checked: Mapping[str, object], ttl: Duration | None, tags: Iterable[str]
    ) -> None:
        life, names = check_ttl("ttl", ttl), check_tags(tags)
        engine = await self._open()
        if not checked:
            return
        change, payloads = Change(keys=tuple(checked)), engine.shelf.encode(checked)
        with engine.invalidation.calls:
            try:
                hold = await engine.shelf.put(checked, payloads, life, names)
                engine.invalidation.forget(change)
                hold()
            except BaseException:
                engine.invalidation.doubt(change)
                raise
            await engine.invalidation.announce(change)

    async def mdel(self, *keys: str) -> int:
        """Invalidate several keys, each as `delete` does, and return how many had a value."""
        checked = tuple(dict.fromkeys(check_key(key) for key in keys))
        engine = await self._open()
        return await engine.invalidation.apply(Change(keys=checked)) if checked else 0

    async def keys(self) -> list[str]:
        """Return the keys that have a value, sorted. For people: it looks at every key.

        Raises:
            ConfigurationError: the store cannot tell.
            CacheUnavailable: it did not answer.
        """
        return await (await self._open()).objects.keys()

    # --- many at once --------------------------------------------------------------------

    async def reset(self) -> None:
        """Invalidate everything in this cache, counters included, and nothing else.

        It takes one write, however much there is. Raises as `delete`.
        """
        await (await self._open()).invalidation.apply(Change(everything=True, counters=(new_id(),)))

    async def invalidate_tags(self, *tags: str) -> None:
        """Invalidate all values with any of these tags, as `delete` does. Raises as it does."""
        names = check_tags(tags, most=None)
        engine = await self._open()
        if names:
            await engine.invalidation.apply(Change(tags=names))

    async def invalidate_after_commit(
        self, transaction: object, *keys: str, tags: Iterable[str] = ()
    ) -> None:
        """Invalidate keys and tags once `transaction` is committed; after a rollback never.

        Returns at once. What goes wrong after the commit is told to `Cluster.on_publish_failure`,
        and is made up for as with `delete`. Called after the commit it waits for the next one of
        the session, and where none follows nothing is invalidated.

        Args:
            transaction: a session or connection of SQLAlchemy, or an object with
                ``on_commit(callable)`` or ``after_commit(callable)``.
            keys: to invalidate.
            tags: whose values to invalidate.

        Raises:
            UnknownTransactionError: nobody can tell when `transaction` is committed.
            ConfigurationError: it cannot be committed, a name is wrong, or there is none.
        """
        checked = tuple(dict.fromkeys(check_key(key) for key in keys))
        change = Change(keys=checked, tags=check_tags(tags, most=None))
        if not (change.keys or change.tags):
            raise ConfigurationError("invalidate_after_commit() needs a key or a tag")
        await (await self._open()).apply_after_commit(transaction, change)

    # --- functions -----------------------------------------------------------------------

    @by_name
    def cached(
        self,
        *,
        key: str | Callable[..., str],
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> Recipe:
        """Return a decorator that keeps what an async function returns.

        The decorated function has ``key(…)`` and ``await invalidate(…)``, see `CachedFunction`.

        Args:
            key: a template such as ``"user:{user_id}"`` of the function's parameters. Different
                texts of values make different keys, which the documentation shows (1 and "1" have
                one text); those that are too long end in a digest. Or a function of the same
                arguments that returns the key.
            ttl: of the values.
            tags: that invalidate them; templates, too, filled as by `str.format`.

        Raises:
            ConfigurationError: there are no parentheses, a template is none, or, once it
                decorates, names what the function does not take.
        """
        return Recipe(self.wrap, self.delete, key, check_ttl("ttl", ttl), tags)

    # --- values in objects ---------------------------------------------------------------

    async def get_value_in_object(
        self, key: str, object_key: str, default: object = None
    ) -> object:
        """Return what an object that is the value of `key` has under `object_key`.

        Raises:
            ConfigurationError: the value is no object, or `object_key` no text.
        """
        checked, field = check_key(key), check_field(object_key)
        value = await self.get(checked, MISSING)
        return (await self._open()).objects.look_up(value, key, field, default)

    async def set_value_in_object(
        self, key: str, object_key: str, value: object, *, create: bool = False
    ) -> bool:
        """Change one field of an object in one atomic step; its ttl goes on.

        Where there is no value nothing is done: an object of this field alone would pass for a
        whole one with all who read it.

        Args:
            key: of the object.
            object_key: of the field.
            value: of the field.
            create: make the object where there is none, with the ttl of the cache.

        Returns:
            Whether it was changed.

        Raises:
            ConfigurationError: the value is no object, or `object_key` no text.
            EncodeError: the value has no JSON form, or the object is nested too deeply.
            CacheUnavailable: the store did not answer; it may be changed.
        """
        made, checked, field = truth("create", create), check_key(key), check_field(object_key)
        if value is MISSING:
            raise EncodeError("MISSING is no value; delete_value_in_object removes a field")
        engine = await self._open()
        return await engine.objects.change(checked, field, value, create=made)

    async def delete_value_in_object(self, key: str, object_key: str) -> bool:
        """Remove one field in one atomic step; return if it was there. Raises as the setter."""
        checked, field = check_key(key), check_field(object_key)
        return await (await self._open()).objects.change(checked, field, MISSING)

    # --- counters ------------------------------------------------------------------------

    async def incr(self, key: str, amount: int = 1, *, ttl: Duration | None = None) -> int:
        """Add to a counter in one atomic step and return it. Counters are no values: see `count`.

        Args:
            key: of the counter.
            amount: from 1 to 2**31.
            ttl: seconds after its beginning, in which it is not prolonged, that it ends.

        Raises:
            CacheUnavailable: the store did not answer; it may be counted.
        """
        life, checked = check_ttl("ttl", ttl), check_key(key)
        more = check_amount(amount)
        return await (await self._open()).counters.increment(checked, more, life)

    async def count(self, key: str) -> int:
        """Return a counter, 0 where there is none. Raises as `incr`."""
        return await (await self._open()).counters.count(check_key(key), clear=False)

    async def clear_count(self, key: str) -> int:
        """Let a counter begin anew, and return what it was. Raises as `incr`."""
        return await (await self._open()).counters.count(check_key(key), clear=True)

    # --- looking after it ----------------------------------------------------------------

    def stats(self) -> CacheStats:
        """Return this instance's counters, since the cache was made."""
        now = replace(self._stats, local_hits=self._stats.local_hits + self._quick_hits)
        engine = self._engine
        if engine is not None:
            now.entries, now.bytes = len(engine.local.entries), engine.local.bytes
            now.unsent, now.loading = engine.invalidation.behind, engine.loading.count
        return now

    def troubles(self) -> list[str]:
        """Return what is wrong; empty when all is well."""
        return list(self._trouble) if self._engine is None else self._engine.troubles()

    # --- life, led by its manager --------------------------------------------------------

    def use(self, engine: Engine | None) -> None:
        """Work with `engine`, or without one, for the cluster does not run."""
        self._engine, self._thread, self._trouble = engine, get_ident(), []
        self.look()

    def look(self) -> None:
        """Let what is held here be handed out at once only as long as it need not be doubted."""
        engine = self._engine
        self._hot = engine.local.entries if engine is not None and engine.live else {}
