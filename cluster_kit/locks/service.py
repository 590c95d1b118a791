"""Locks of an application: one holder at a time, among all its instances."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from cluster_kit.checks import whole_number
from cluster_kit.clock import MAX_WAIT, BootClock, Duration, seconds
from cluster_kit.errors import ConfigurationError, LockUnavailable
from cluster_kit.locks.acquiring import Acquiring
from cluster_kit.locks.contention import Contention
from cluster_kit.locks.context import LockContext
from cluster_kit.locks.leading import lead
from cluster_kit.locks.lease import Lease
from cluster_kit.locks.multi import MultiLease, hold_all
from cluster_kit.locks.rates import RateLimit
from cluster_kit.locks.semaphore import Semaphore
from cluster_kit.locks.states import LeaseState
from cluster_kit.locks.stats import Counters, LockStats
from cluster_kit.locks.terms import DEFAULT_TTL, answer_timeout, check_key

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.ports import LockAdapter, LockCapabilities, LockHolder
    from cluster_kit.settings import LockSettings
    from cluster_kit.supervisor import Supervisor
    from cluster_kit.telemetry import Telemetry

log = logging.getLogger(__name__)

MOST_IN_A_PERIOD = 10_000
"""Of a rate limit: the server keeps the time of each."""

MOST_PERMITS = 100
"""Of a semaphore: whoever waits for one asks for each of them."""


class LockManager(Acquiring):
    """Locks by key. Got from `Cluster.locks`.

    All calls that acquire take the same options: `ttl` seconds after which the lock is free when
    its holder is gone (it is renewed while the holder lives); `timeout` seconds to wait, counted
    from the call, 0 to try once, None for the setting ``locks.timeout``; ``renew=False`` to let
    it end with its ttl; `max_hold` seconds after which it counts as lost although it is renewed;
    ``reentrant=True`` to share a lock the same task holds already, instead of `LockAlreadyHeld`.

    A lock alone makes doubled work unlikely. Where it must not happen, what is protected has to
    refuse a holder whose `Lease.fence` is older than one it has seen.
    """

    def __init__(
        self,
        app: str,
        instance_id: str,
        settings: LockSettings,
        *,
        telemetry: Telemetry,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings)
        self._app = app
        self._instance_id = instance_id
        self._telemetry = telemetry
        self._clock = clock or BootClock()
        self._counters = Counters()
        self._rates: WeakValueDictionary[tuple[str, int, float], RateLimit] = WeakValueDictionary()

    # --- acquiring -----------------------------------------------------------------------

    @asynccontextmanager
    async def multi(
        self,
        keys: Iterable[str],
        *,
        ttl: Duration = DEFAULT_TTL,
        timeout: Duration | None = None,
        renew: bool = True,
        max_hold: Duration | None = None,
        reentrant: bool = False,
    ) -> AsyncGenerator[MultiLease]:
        """Hold several locks for a body; `timeout` is for all together.

        They are taken in the order of their keys, so that two of these never wait in a circle.
        Raises as `hold`.
        """
        if isinstance(keys, str) or not isinstance(keys, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(keys).__name__
            raise ConfigurationError(f"keys must be several keys, as in a list, not one {kind}")
        names = sorted({check_key(key) for key in keys})
        if not names:
            raise ConfigurationError("multi() needs at least one key")
        limit = seconds("timeout", self._settings.timeout if timeout is None else timeout)
        one = partial(self._lease, ttl=ttl, renew=renew, max_hold=max_hold, reentrant=reentrant)
        async with hold_all(names, limit, self._clock, one) as lease:
            yield lease

    def leader(
        self, key: str, *, ttl: Duration = DEFAULT_TTL, max_hold: Duration | None = None
    ) -> AsyncGenerator[Lease]:
        """Come to lead again and again: ``async for lease in locks.leader("scheduler"):``.

        Each turn of the loop begins when this instance has the lock and gives it back at its end.
        The body enters the lease with ``async with``, to be cancelled when another may lead, and
        goes on to the next turn after `LockLost`. The loop ends when the cluster stops.

        Raises:
            LockUnavailable: the server refuses to be connected, and waiting does not help.
            LockAlreadyHeld, NotStartedError, ConfigurationError: as `acquire`.
        """
        self._active()

        def acquire(timeout: Duration) -> Awaitable[Lease]:
            return self.acquire(key, ttl=ttl, timeout=timeout, max_hold=max_hold)

        return lead(acquire)

    def semaphore(self, key: str, permits: int) -> Semaphore:
        """Return what lets `permits` in at a time, from 1 to 100; all must say the same number."""
        number = whole_number("permits", permits, least=1, most=MOST_PERMITS)
        return Semaphore(check_key(key), number, self._active, self._terms)

    def rate_limit(self, key: str, limit: int, period: Duration) -> RateLimit:
        """Return what admits `limit`, from 1 to 10,000, in any `period` seconds.

        All who use the key must say the same numbers. In memory and on Redis only.
        """
        number = whole_number("limit", limit, least=1, most=MOST_IN_A_PERIOD)
        length = seconds("period", period, zero=False, limit=MAX_WAIT)
        name = check_key(key)
        found = self._rates.get((name, number, length))
        if found is None:
            found = RateLimit(name, number, length, self._active, self._settings.timeout)
            self._rates[name, number, length] = found
        return found

    # --- looking after it ----------------------------------------------------------------

    async def inspect(self, key: str) -> LockHolder | None:
        """Return who holds a lock at the moment, None when nobody does. For people.

        Raises:
            LockUnavailable: the server did not answer.
        """
        around = self._active().around
        name = around.name_of(check_key(key))
        try:
            return await around.adapter.inspect(name, timeout=answer_timeout(DEFAULT_TTL))
        except LockUnavailable as exc:
            raise around.told(key, exc) from exc

    def capabilities(self) -> LockCapabilities:
        """Return what locks promise on the backend in use."""
        return self._running().around.adapter.capabilities

    def stats(self) -> LockStats:
        """Return this instance's counters, since it was made."""
        now = self._contention
        return self._counters.snapshot(
            held=len(now.held) if now else 0, waiting=now.waiting if now else 0
        )

    def troubles(self) -> list[str]:
        """Return which locks could not be renewed; empty when all is well."""
        now = self._contention
        return [
            f"lock {possession.key!r} could not be renewed"
            for possession in (tuple(now.held.values()) if now else ())
            if possession.read() is LeaseState.SUSPECT
        ]

    # --- life, led by Cluster ------------------------------------------------------------

    def attach(
        self,
        adapter: LockAdapter,
        supervisor: Supervisor,
        hints: Sequence[str] = (),
        *,
        source: str = "",
    ) -> None:
        """Use a connected adapter.

        Args:
            adapter: of the backend.
            supervisor: starts what outlives a call.
            hints: logged when the first lock is asked for.
            source: what the URL comes from, for errors.
        """
        for warning in adapter.warnings():
            log.warning("locks: %s", warning)
        self._hints = hints
        around = LockContext(
            app=self._app,
            adapter=adapter,
            supervisor=supervisor,
            clock=self._clock,
            random=random.Random(),
            report=self._report,
            releasing=set(),
            source=source,
        )
        self._contention = Contention(around, owner=self._instance_id)

    def lacks(self, reason: str) -> None:
        """There is no adapter for locks: whoever asks for one is told so."""
        self._lacking = reason

    async def close(self, grace: float = 1.0) -> None:
        """End what waits, end the bodies of what is held, and give everything back.

        Args:
            grace: seconds for bodies to end. A lock whose body runs on is left to its ttl.
        """
        contention, self._contention = self._contention, None
        self._lacking = ""
        if contention is not None:
            await contention.close(grace)

    # --- inside --------------------------------------------------------------------------

    def _report(self, event: str, /, **fields: object) -> None:
        self._counters.count(event)
        self._telemetry.emit(event, **fields)
