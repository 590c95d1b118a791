"""One load: look again, promise, load, keep what is still wanted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from cluster_kit.cache.found import fresh, usable
from cluster_kit.cache.promises import Right
from cluster_kit.cache.values import Loaded
from cluster_kit.errors import CacheLoadTimeout, CacheUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.cache.flight import Flight
    from cluster_kit.cache.found import Found
    from cluster_kit.cache.loaders import Request
    from cluster_kit.cache.local import Entry, Ticket
    from cluster_kit.cache.promises import Withdrawals
    from cluster_kit.cache.remote import Remote
    from cluster_kit.cache.tools import Tools

log = logging.getLogger(__name__)

BACKGROUND = 10
"""A load that takes longer than so many times the hard timeout is given up."""

THROTTLE = 10.0
"""Seconds for which a value that could not be loaded anew is not tried again."""

_FIRST_POLL, _LONGEST_POLL = 0.005, 0.1
_CLOCKS = 2  # times the longest promise: others' clocks may be ahead by as much


class Load:
    """The load of one flight.

    Args:
        tools: what it needs.
        flight: it is for.
        ticket: to hold the value in this process.
        request: what is wanted.
        renew: loads the value anew in the background.
        withdrawals: take promises back.
    """

    def __init__(
        self,
        tools: Tools,
        flight: Flight,
        ticket: Ticket,
        request: Request,
        renew: Callable[[str, Request], None],
        withdrawals: Withdrawals,
    ) -> None:
        self._tools = tools
        self._shelf = tools.shelf
        self._flight = flight
        self._key = flight.key
        self._ticket = ticket
        self._request = request
        self._renew = renew
        self._withdrawals = withdrawals
        self._right: Right | None = None
        self._alone = False  # the store did not answer, or cannot hold a promise

    async def run(self) -> Entry:
        """Return the value. Raises what the loader does, unless an older value stands in.

        A loader that does not end in time is told to, and counts as one that failed.
        """
        try:
            found = await self._look()
        except BaseException:
            self._withdraw()  # it may be there although nobody has seen the answer
            raise
        if found is not None:
            # Who joined after it was read may have asked after an invalidation nobody told here.
            self._flight.refused = not self._tools.heard
            return found
        stale = self._flight.stale
        self._flight.tags = frozenset(self._request.tags) | (stale.tags if stale else frozenset())
        self._tools.stats.misses += not self._request.renew
        keeper = self._keep_promise()
        try:
            return await self._load_in_time()
        except BaseException as exc:  # noqa: BLE001 - the promise is withdrawn in any case
            return await self._fail(exc)
        finally:
            if keeper is not None:
                keeper.cancel()

    # --- the store -------------------------------------------------------------------------------

    async def _look(self) -> Entry | None:
        """Look into the store until there is a value, or the right to store one.

        Raises:
            CacheLoadTimeout: somebody else loads it for longer than anybody here waits.
        """
        shelf, tools = self._shelf, self._tools
        end = tools.clock.monotonic() + tools.options.hard_timeout
        pause = _FIRST_POLL
        while shelf.remote is not None:
            [found] = await shelf.found([self._key], self._request.tags)
            if found is None:
                self._alone = True
                return None
            promised = self._is_promised(found)
            entry = self._usable(found, promised=promised)
            if entry is not None:
                return entry
            if not promised and await self._promise(shelf.remote, found):
                return None
            if tools.clock.monotonic() >= end and not self._flight.heard:
                options = tools.options
                raise CacheLoadTimeout(self._key, options.hard_timeout, options.name)
            await tools.clock.sleep(pause * tools.random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_POLL)
        return None

    def _is_promised(self, found: Found) -> bool:
        """Whether somebody loads it; nobody promises more than this, by a clock that is right."""
        ahead = found.promised - self._tools.clock.wall()
        return 0 < ahead <= _CLOCKS * max(self._tools.promise_ttl, THROTTLE)

    def _usable(self, found: Found, *, promised: bool) -> Entry | None:
        """Return what was found if it will do."""
        record = found.record
        if record is None:
            self._flight.stale = None  # invalidated, as far as anybody can tell
            self._shelf.local.discard(self._key)
            return None
        now = self._tools.clock.wall()
        old = self._is_old(found)
        if fresh(record, now) and not (self._request.renew and old):
            entry = self._shelf.adopt(self._key, record, self._ticket)
            if entry is not None:
                self._tools.stats.store_hits += 1
                if old and not promised:
                    self._renew(self._key, self._request)
            return entry
        if usable(record, now):
            ticket = None if self._request.renew else self._ticket
            stale = self._shelf.adopt(self._key, record, ticket)
            self._flight.stale = stale or self._flight.stale
        if promised and self._flight.stale is not None:
            return self._flight.stale
        return None

    def _is_old(self, found: Found) -> bool:
        record, share = found.record, self._tools.options.eager
        if record is None or record.ttl is None or share is None:
            return False
        left = record.left(self._tools.clock.wall())
        return left is not None and left <= record.ttl * (1 - share)

    async def _promise(self, remote: Remote, found: Found) -> bool:
        """Become the one who loads it; False when somebody else did, or the key changed."""
        self._right = right = Right(self._tools, remote, self._key, found)
        made = await right.make()
        if made is None:
            self._alone = True
        if made is False or right.refused:
            self._right = None
        return made is not False

    def _keep_promise(self) -> asyncio.Task[None] | None:
        """Let the promise count while this process lives and loads."""
        load, stale = asyncio.current_task(), self._flight.stale
        if self._right is not None and load is not None:
            keeping = self._right.keep(load, self._lost)
        elif self._alone and stale is not None and stale.usable < inf:
            keeping = self._outlast(stale.usable)
        else:
            return None
        return self._tools.supervisor.spawn(keeping, name=f"promise:{self._key}")

    async def _outlast(self, usable: float) -> None:
        """Let no older value stand in for longer than it may without a word of the store."""
        await self._tools.clock.sleep(max(0.0, usable - self._tools.clock.monotonic()))
        self._lost()

    def _lost(self) -> None:
        """It may be invalidated: who asks from here on does not join, nor gets what there was."""
        self._flight.close()
        self._flight.stale = None
        if not self._tools.heard:  # nor does the next load take it up again
            self._shelf.local.retire(self._ticket)

    # --- the value -------------------------------------------------------------------------------

    async def _load_in_time(self) -> Entry:
        limit, name = BACKGROUND * self._tools.options.hard_timeout, self._tools.options.name
        end = asyncio.timeout(limit)
        try:
            async with end:
                return await self._load()
        except TimeoutError:
            if not end.expired():  # the loader's own
                raise
            text = "cache %s: the load of %s was given up: it took longer than %g s"
            log.warning(text, name, self._key, limit)
            raise CacheLoadTimeout(self._key, limit, name, given_up=True) from None

    async def _load(self) -> Entry:
        tools, request, turn = self._tools, self._request, self._flight.turn
        tools.stats.loads += 1
        start = tools.clock.monotonic()
        name = f"cache:{tools.options.name}:{self._key}"
        value, ttl, keep = await tools.runner.call(request.load, name, turn), None, True
        if isinstance(value, Loaded):
            ttl, keep, value = value.ttl, value.keep, value.value
        if ttl is None:
            negative = tools.options.negative_ttl if value is None else None
            ttl = request.ttl if negative is None else negative
        if keep and request.condition is not None:
            keep = bool(await tools.runner.call(request.condition, name, turn, value))
        taken = tools.clock.monotonic() - start
        tools.report("cache.loaded", cache=tools.options.name, key=self._key, seconds=taken)
        if keep:
            return await self._keep(value, self._shelf.lifetime(ttl))
        await self._pass()
        return self._shelf.passing(self._key, value)

    async def _pass(self) -> None:
        """Let others load it; who joined may have asked after an invalidation not heard of here."""
        if self._right is None:
            self._flight.refused = self._alone
            return
        self._flight.close()
        gone = await self._right.withdraw()
        if not gone:
            self._withdraw()
        self._flight.refused = not (gone and self._right.intact)

    async def _keep(self, value: object, ttl: float | None) -> Entry:
        """Keep what was loaded, unless it was invalidated meanwhile; return it in any case."""
        shelf, tags = self._shelf, self._request.tags
        payload = shelf.encode({self._key: value})[self._key]
        entry = shelf.entry(value, payload, ttl, tags, self._ticket)
        kept = shelf.remote is None
        if self._right is not None:
            kept = await self._store(self._right, payload, entry, ttl)
        elif self._alone:
            kept = self._keep_alone(entry)
        if not (kept and shelf.local.redeem(self._ticket, entry)):
            self._flight.refused = True
            self._tools.stats.refused += 1
            self._tools.report("cache.refused", cache=self._tools.options.name, key=self._key)
        return entry

    async def _store(self, right: Right, payload: bytes, entry: Entry, ttl: float | None) -> bool:
        remote, shelf = right.remote, self._shelf
        self._flight.close()  # who asks from here on may ask after an invalidation not seen here
        # A promise that was not confirmed may have come after an invalidation, and stand there yet.
        if self._alone or not shelf.local.stands(self._ticket, entry.tags):
            self._withdraw()
            return self._alone and self._keep_alone(entry)
        record = remote.value(right.found, ttl, shelf.grace, self._request.tags)
        try:
            filled = await remote.fill(self._key, right.head, payload, record)
        except CacheUnavailable:
            self._withdraw()
            return False
        return filled

    def _keep_alone(self, entry: Entry) -> bool:
        """Hold for a moment what the store knows nothing of; who joined loads it anew."""
        self._flight.refused = True
        return self._shelf.shorten(entry)

    # --- no value --------------------------------------------------------------------------------

    async def _fail(self, error: BaseException) -> Entry:
        """Let an older value stand in, or raise."""
        stale = self._flight.stale
        stands_in = stale is not None and self._shelf.local.stands(self._ticket, stale.tags)
        if stale is None or not stands_in or not isinstance(error, Exception):
            self._withdraw()
            self._note(error, stale=False)
            raise error
        self._note(error, stale=True)
        if self._right is None or await self._spare(self._right):
            self._shelf.stand_in(self._ticket, stale, THROTTLE)
        return stale

    async def _spare(self, right: Right) -> bool:
        """Let others use the older value, too; return whether it was not invalidated meanwhile."""
        with suppress(CacheUnavailable):
            await right.prolong(THROTTLE)
        [found] = await self._shelf.found([self._key])
        return found is not None and found.record is not None

    def _note(self, error: BaseException, *, stale: bool) -> None:
        if not isinstance(error, Exception):
            return
        name, what = self._tools.options.name, type(error).__name__
        self._tools.stats.failures += 1
        self._tools.report("cache.load_failed", cache=name, key=self._key, error=what, stale=stale)
        if stale:
            text = "cache %s: an old value stands in for %s, which could not be loaded: %r"
            log.warning(text, name, self._key, error)

    def _withdraw(self) -> None:
        """Let others load it, without keeping anybody waiting for that."""
        if self._right is not None:
            self._withdrawals.begin(self._right)
