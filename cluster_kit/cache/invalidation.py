"""From an invalidation to everybody who must know: the store, this process, other instances."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit.cache.calls import Calls
from cluster_kit.cache.changes import Change, Unsent
from cluster_kit.errors import CacheUnavailable

if TYPE_CHECKING:
    from cluster_kit.cache.backplane import Backplane
    from cluster_kit.cache.counters import LocalCounters
    from cluster_kit.cache.loading import Loading
    from cluster_kit.cache.remote import Remote
    from cluster_kit.cache.shelf import Shelf
    from cluster_kit.cache.tools import Tools

log = logging.getLogger(__name__)

_START = 0.5  # seconds
_LOOK = 0.1


class Invalidation:
    """Carries out what one cache is told to forget.

    Attributes:
        calls: those under way, from the store to the last who is to be told.
        stopping: a stop has begun, so that nothing can be promised any more.

    Args:
        shelf: what is held in this process, and what the store has.
        loading: the loads under way.
        counters: of this process.
        backplane: to other instances; None for none.
        tools: what it needs.
    """

    def __init__(
        self,
        shelf: Shelf,
        loading: Loading,
        counters: LocalCounters,
        backplane: Backplane | None,
        tools: Tools,
    ) -> None:
        self._name = tools.options.name
        self._local = shelf.local
        self._remote = shelf.remote
        self._owed = shelf.owed
        self._loading = loading
        self._counters = counters
        self._backplane = backplane
        self._unsent = Unsent() if backplane is None else backplane.unsent
        self._store_told = asyncio.Event()
        self._store_told.set()
        self._stats = tools.stats
        self._report = tools.report
        self._stuck = False  # not even everything can be told, which was said
        self.stopping: bool = False
        self._lost: int | None = None  # so much was said to be never told
        self.calls: Calls = Calls(self._say_what_is_lost)

    async def apply(self, change: Change) -> int:
        """Carry out a change; return how many values were there, as far as known.

        The store first: what is read from it from then on is right. Then this process, and with
        it whoever read before. Then the others.

        A caller who gives up in between takes nothing back: it is carried out all the same.

        Raises:
            CacheUnavailable: neither the store nor other instances could be told. Both will be,
                unless a stop has begun.
        """
        self._stats.invalidations += 1
        if change.counters:  # with it those that are owed are carried out
            change = change._replace(counters=(*self._owed.counters, *change.counters))
        with self.calls:
            try:
                return await self._apply(change)
            except BaseException:
                self.doubt(change)
                raise

    async def _apply(self, change: Change) -> int:
        held = self.forget(change)
        count, error = await self._tell_store(change)
        held = max(held, self.forget(change))
        stored = error is None
        told = await self.broadcast(change._replace(stored=stored))
        self._report(
            "cache.invalidated",
            cache=self._name,
            keys=len(change.keys),
            tags=len(change.tags),
            everything=change.everything,
            stored=stored,
            told=told,
        )
        if self._remote is not None and error is None:
            return max(held, count)
        if self._backplane is None and error is not None:
            raise error
        if not told:
            raise self._untold()
        return max(held, count)

    async def broadcast(self, change: Change) -> bool:
        """Tell other instances, now or later; return whether they know now."""
        if self._backplane is None:
            return True
        return await self._backplane.tell(change)

    async def announce(self, change: Change) -> None:
        """Tell other instances of new values.

        Raises:
            CacheUnavailable: they could not be told, and no store will tell them. They will be,
                unless a stop has begun.
        """
        if not await self.broadcast(change) and self._remote is None:
            raise self._untold()

    def doubt(self, change: Change) -> None:
        """Have everybody forget what a call that failed may have changed in the store."""
        self.forget(change)
        if self._backplane is not None:
            self._unsent.add(change)

    def heard(self, change: Change) -> None:
        """Forget what another instance has invalidated."""
        self.forget(change)
        if not change.stored and self._remote is not None:
            self._owed.add(change)  # whoever reaches the store first tells it
        else:
            self._owed.carried_out(change.counters)

    def missed(self, reason: str) -> None:
        """Forget all that is held here: it may have been invalidated unheard."""
        self._local.clear()
        self._loading.forget()
        self._stats.gaps += 1
        self._report("cache.gap", cache=self._name, reason=reason)

    def forget(self, change: Change) -> int:
        """Hold nothing of it in this process any more; return how many values were held."""
        if change.everything:
            self._local.clear()
            self._loading.forget()
        elif change.tags:
            self._local.drop_tags(change.tags)
            self._loading.forget_tags(change.tags)
        if change.counters:
            self._counters.reset(change.counters)
        self._loading.forget(change.keys)
        return self._local.drop(change.keys)

    # --- what is still to be told ----------------------------------------------------------------

    @property
    def behind(self) -> int:
        """How much is still to be told."""
        return len(self._owed) + len(self._unsent)

    @property
    def owes_store(self) -> bool:
        """Whether the store is to be told."""
        return bool(self._owed)

    @property
    def owes_others(self) -> bool:
        """Whether other instances are to be told."""
        return bool(self._unsent)

    async def tell_store(self) -> None:
        """Tell the store what it could not be told, as far as it goes."""
        additions = self._owed.additions
        self._store_told.clear()
        try:
            for change in tuple(self._owed.parts()):
                if not await self._pay(change):
                    return
                self._paid(change, additions)
        finally:
            self._store_told.set()

    async def settle_counters(self) -> None:
        """Tell the store of resets of counters it has not heard of.

        Raises:
            CacheUnavailable: it could not be told.
        """
        if self._remote is None or not self._owed.counters:
            return
        additions, resets = self._owed.additions, tuple(self._owed.counters)
        await self._remote.reset_counters(resets, although_resting=False)
        self._paid(Change(counters=resets), additions)

    def _paid(self, change: Change, additions: int) -> None:
        self._owed.done(change, additions)
        self.forget(change)
        if self._backplane is not None:
            self._unsent.add(change)  # others may have read the store meanwhile

    async def tell_others(self) -> None:
        """Tell other instances what they could not be told, as far as it goes.

        The store has a start, but no more: what it has heard of, others need not tell it.
        """
        if self._backplane is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_START):
                await self._store_told.wait()
        await self._backplane.flush(self._owed)

    async def tell_store_to_the_end(self) -> None:
        """Tell it also what calls under way leave: there is no later."""
        await self.tell_store()
        await self.calls.over()
        await self.tell_store()

    async def tell_others_to_the_end(self) -> None:
        """Tell them also what calls leave, while others of these are still under way."""
        while not await self._over_soon():
            await self.tell_others()
        await self.tell_others()

    async def _over_soon(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await self.calls.over()
                return True
        return False

    def give_up(self) -> None:
        """Tell nothing any more; what is still to be told is logged, now and as calls end."""
        self._lost = 0
        self._say_what_is_lost()

    def _say_what_is_lost(self) -> None:
        if self._lost is not None and self._lost != self.behind:
            self._lost = self.behind
            were = "invalidation was" if self._lost == 1 else "invalidations were"
            text = f"cache %r: %d {were} not told to all, and will not be"
            log.error(text, self._name, self._lost)

    def _untold(self) -> CacheUnavailable:
        cause = self._backplane.error if self._backplane else None
        later = ", and the cluster stops" if self.stopping else "; they will be"
        reason = f"other instances could not be told{later}"
        made = CacheUnavailable(self._name, f"{reason}: {cause}" if cause else reason)
        made.__cause__ = cause
        return made

    async def _tell_store(self, change: Change) -> tuple[int, CacheUnavailable | None]:
        if self._remote is None:
            return 0, None
        try:
            count = await self._write(self._remote, change)
        except CacheUnavailable as exc:
            self._owed.add(change)
            return 0, exc
        except BaseException:
            self._owed.add(change)
            raise
        self._owed.carried_out(change.counters)
        return count, None

    async def _pay(self, change: Change) -> bool:
        if self._remote is None:
            return True
        try:
            await self._write(self._remote, change)
        except CacheUnavailable:
            return False
        except Exception:
            if not self._stuck:
                log.exception("cache %s: an invalidation cannot be told: %s", self._name, change)
            self._stuck = change.everything or bool(change.counters)
            if not self._stuck:
                self._owed.add(Change(everything=True))  # so that nothing counts that must not
            return not self._stuck
        self._stuck = False
        return True

    @staticmethod
    async def _write(remote: Remote, change: Change) -> int:
        if change.everything:
            await remote.reset()
        if change.counters:
            await remote.reset_counters(change.counters)
        if change.tags:
            await remote.bump(change.tags)
        return await remote.remove(change.keys) if change.keys else 0
