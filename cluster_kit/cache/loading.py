"""Loads values: of each key one load at a time, in this process and among all instances."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.cache.flight import Flight
from cluster_kit.cache.load import THROTTLE, Load
from cluster_kit.errors import CacheRecursion, NotStartedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit.cache.load import Request
    from cluster_kit.cache.local import Entry
    from cluster_kit.cache.tools import Tools

log = logging.getLogger(__name__)

BACKGROUND = 10
"""A load that nobody waits for any more is cancelled after so many times the hard timeout."""

_under_way: ContextVar[tuple[Flight, ...]] = ContextVar("cluster_kit_cache_loads", default=())


class Loading:
    """The loads of one cache.

    Args:
        tools: what a load needs.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._flights: dict[str, Flight] = {}

    def forget(self, keys: Iterable[str] | None = None) -> None:
        """Let nobody join the loads of these keys any more, by default of all.

        Those who wait for one already get what they asked for before the invalidation.
        """
        if keys is None:
            self._flights.clear()
        else:
            for key in keys:
                self._flights.pop(key, None)

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
        flight = self._flights.get(key)
        if flight is None:
            flight = self._begin(key, request)
        elif flight in _under_way.get():
            raise CacheRecursion(key)
        else:
            tools.stats.joined += 1
        options = tools.options
        found = await flight.join(options.soft_timeout, options.hard_timeout, self._used_stale)
        return found.copy()

    def renew(self, key: str, request: Request) -> None:
        """Load a key in the background although there is a value."""
        self._begin(key, replace(request, renew=True)).background()

    def _begin(self, key: str, request: Request) -> Flight:
        flight = Flight(key, self._tools.shelf.stale(key))
        flight.outcome.add_done_callback(_retrieve)
        self._flights[key] = flight
        name = f"cache:{self._tools.options.name}:{key}"
        task = self._tools.supervisor.spawn(self._run(flight, request), name=name)
        flight.cancel = partial(self._abandon, flight, task)
        return flight

    def _abandon(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """End a load nobody waits for; who comes now begins another."""
        self._remove(flight)
        task.cancel()

    def _remove(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    async def _run(self, flight: Flight, request: Request) -> None:
        _under_way.set((*_under_way.get(), flight))
        tools = self._tools
        ticket = tools.shelf.local.open(flight.key)
        try:
            async with asyncio.timeout(BACKGROUND * tools.options.hard_timeout):
                entry = await Load(tools, flight, ticket, request, self.renew).run()
            flight.outcome.set_result(entry)
        except Exception as exc:  # noqa: BLE001 - handed to those who wait
            self._failed(flight, exc)
        finally:
            if not flight.outcome.done():
                flight.outcome.set_exception(NotStartedError("the load was ended by a stop"))
            tools.shelf.local.close(ticket)
            self._remove(flight)

    def _failed(self, flight: Flight, error: Exception) -> None:
        if not flight.heard:
            name = self._tools.options.name
            log.warning("cache %s: loading %s failed", name, flight.key, exc_info=error)
        flight.outcome.set_exception(error)

    def _used_stale(self) -> None:
        self._tools.stats.stale += 1


def _retrieve(outcome: asyncio.Future[Entry]) -> None:
    """Whoever waits has the error, and one nobody waits for was logged."""
    if not outcome.cancelled():
        outcome.exception()
