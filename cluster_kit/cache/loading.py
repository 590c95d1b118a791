"""Loads values: of each key one load at a time, in this process and among all instances."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.cache.flight import Flight
from cluster_kit.cache.load import THROTTLE, Load
from cluster_kit.cache.loaders import in_thread
from cluster_kit.cache.promises import Withdrawals
from cluster_kit.errors import CacheError, CacheLoadTimeout, CacheRecursion, NotStartedError
from cluster_kit.signature import is_async

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cluster_kit.cache.loaders import Request
    from cluster_kit.cache.local import Entry, Ticket
    from cluster_kit.cache.tools import Tools
    from cluster_kit.errors import ClusterKitError

log = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds that loaders have to end at a stop, and promises to be taken back."""

_loads: ContextVar[tuple[Flight, ...]] = ContextVar("cluster_kit_cache_loads", default=())


class Loading:
    """The loads of one cache.

    Args:
        tools: what a load needs.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._flights: dict[str, Flight] = {}
        self._renewals: dict[str, Flight] = {}  # of what there is, in the background
        self._all: set[Flight] = set()  # with those that nobody may join any more
        self._tasks: set[asyncio.Task[None]] = set()
        self._withdrawals = Withdrawals(tools)

    @property
    def count(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def forget(self, keys: Iterable[str] | None = None) -> None:
        """Let nobody join the loads of these keys any more, by default of all.

        Those who wait for one already get what they asked for before the invalidation.
        """
        for flights in (self._flights, self._renewals):
            for key in tuple(flights) if keys is None else keys:
                flights.pop(key, None)

    def forget_tags(self, tags: Iterable[str]) -> None:
        """Likewise of the loads whose value has any of these tags, or may turn out to have."""
        named = frozenset(tags)
        for flights in (self._flights, self._renewals):
            for key, flight in tuple(flights.items()):
                if flight.tags is None or not named.isdisjoint(flight.tags):
                    del flights[key]

    async def stop(self) -> None:
        """End all loads, so that other instances need not wait for them."""
        self.forget()
        clock, tasks = self._tools.clock, tuple(self._tasks)
        end = clock.monotonic() + GRACE
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        await self._withdrawals.close(max(0.0, end - clock.monotonic()))

    async def get(self, key: str, request: Request) -> object:
        """Return the value of a key, loaded if need be. Raises as `Flight.join`."""
        tools = self._tools
        entry = tools.shelf.held(key)
        if entry is not None:
            tools.stats.local_hits += 1
            now = tools.clock.monotonic()
            if now >= entry.eager:
                entry.eager = now + THROTTLE  # one at a time, and not at once again
                self.renew(key, request)
            return entry.copy()
        entry = tools.shelf.standing_in(key)
        if entry is not None:
            tools.stats.stale += 1
            return entry.copy()
        return (await self._wait(key, request)).copy()

    async def _wait(self, key: str, request: Request) -> Entry:
        """Wait for a load, one that is under way or a new one.

        Who joins one that then turns out to be overtaken by an invalidation may have asked after
        that, and waits for another.
        """
        tools = self._tools
        end = tools.clock.monotonic() + tools.options.hard_timeout
        flight = self._under_way(key)
        if flight is not None:
            tools.stats.joined += 1
            entry = await self._join(flight, end)
            if not flight.refused:
                return entry
        # Whatever is under way now began after this caller had asked.
        flight = self._under_way(key) or self._begin(key, request, self._flights)
        return await self._join(flight, end)

    async def _join(self, flight: Flight, end: float) -> Entry:
        """Wait for a load, on behalf of another one when its loader asks for this."""
        tools, behalf = self._tools, _loads.get()[-1:]
        if _is_urgent():
            flight.hurry()
        for load in behalf:
            load.needs.append(flight)
        try:
            left = end - tools.clock.monotonic()
            return await flight.join(tools.options.soft_timeout, left, self._used_stale)
        finally:
            for load in behalf:
                load.needs.remove(flight)

    def _under_way(self, key: str) -> Flight | None:
        """Return the load to wait for.

        A renewal is none where there is a store: it may still have the value that is renewed.
        """
        # Its loader may have invalidated it first: then nobody joins it, and it is still under way.
        same = (flight for flight in _around() if flight.key == key)
        if any(flight in self._all for flight in same):
            raise CacheRecursion(key)
        flight, renewal = self._flights.get(key), self._renewals.get(key)
        return flight or (renewal if self._tools.shelf.remote is None else None)

    def renew(self, key: str, request: Request) -> None:
        """Load a key in the background although there is a value, unless that is under way."""
        if key not in self._renewals:
            self._begin(key, request._replace(renew=True), self._renewals).background()

    def _begin(self, key: str, request: Request, flights: dict[str, Flight]) -> Flight:
        shelf, cache = self._tools.shelf, self._tools.options.name
        # At once, not when the task runs: what is invalidated in between must not stand in.
        flight = Flight(key, shelf.stale(key), cache, urgent=_is_urgent())
        ticket = shelf.local.open(key)
        flight.outcome.add_done_callback(_retrieve)
        flights[key] = flight
        self._all.add(flight)
        name = f"cache:{cache}:{key}"
        task = self._tools.supervisor.spawn(self._run(flight, ticket, request), name=name)
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, flight, ticket))
        flight.close = partial(self._remove, flight)
        if is_async(request.load):
            flight.cancel = partial(self._abandon, flight, task)
        else:  # nothing ends its thread: whoever comes joins it
            flight.cancel = flight.background
        return flight

    def _abandon(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """End a load nobody waits for; who comes now begins another."""
        self._remove(flight)
        task.cancel()

    def _remove(self, flight: Flight) -> None:
        for flights in (self._flights, self._renewals):
            if flights.get(flight.key) is flight:
                del flights[flight.key]

    async def _run(self, flight: Flight, ticket: Ticket, request: Request) -> None:
        # A task that an earlier load left behind may begin this one, and so on without end.
        _loads.set((*_around(), flight))
        load = Load(self._tools, flight, ticket, request, self.renew, self._withdrawals)
        try:
            flight.outcome.set_result(await load.run())
        except Exception as exc:  # noqa: BLE001 - handed to those who wait
            self._failed(flight, exc)
        finally:
            self._remove(flight)

    def _over(self, flight: Flight, ticket: Ticket, task: asyncio.Task[None]) -> None:
        """Let nobody wait any more, however it ended and if it did not even begin."""
        self._tasks.discard(task)
        self._all.discard(flight)
        self._tools.shelf.local.close(ticket)
        self._remove(flight)
        if not flight.outcome.done():
            flight.outcome.set_exception(_ended(flight.key, task))

    def _failed(self, flight: Flight, error: Exception) -> None:
        if not flight.heard and not isinstance(error, CacheLoadTimeout):  # that was told
            name = self._tools.options.name
            log.warning("cache %s: loading %s failed", name, flight.key, exc_info=error)
        flight.outcome.set_exception(error)

    def _used_stale(self) -> None:
        self._tools.stats.stale += 1


def _around() -> Iterator[Flight]:
    """Return the loads, still under way, whose loaders ask for what is asked for here."""
    return (flight for flight in _loads.get() if not flight.outcome.done())


def _is_urgent() -> bool:
    """Whether one of our threads waits for what is asked for here, be it through other loads."""
    return in_thread() or any(flight.turn.urgent for flight in _around())


def _ended(key: str, task: asyncio.Task[None]) -> ClusterKitError:
    """Return what to tell those who wait for a load that ended without value and error."""
    if task.cancelled() and task.cancelling():
        return NotStartedError("the load was ended by a stop")
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    told = CacheError(f"the loader of {key!r} raised {type(error).__name__}")
    told.__cause__ = error
    return told


def _retrieve(outcome: asyncio.Future[Entry]) -> None:
    """Whoever waits has the error, and one nobody waits for was logged."""
    if not outcome.cancelled():
        outcome.exception()
