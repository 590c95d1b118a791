"""The four ways to ask for a lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar, Unpack, overload

from cluster_kit.clock import Duration
from cluster_kit.errors import (
    ConfigurationError,
    LockAlreadyHeld,
    LockTimeout,
    NotStartedError,
)
from cluster_kit.locks.lease import Holding, Lease
from cluster_kit.locks.running import run_inside
from cluster_kit.locks.terms import (
    DEFAULT_TTL,
    LockOptions,
    Terms,
    check_key,
    check_options,
)

if TYPE_CHECKING:
    from cluster_kit.locks.bond import Bond
    from cluster_kit.locks.contention import Contention
    from cluster_kit.locks.possession import Possession
    from cluster_kit.settings import LockSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


class Acquiring:
    """Base of `LockManager`: what acquires. Its options are explained there."""

    def __init__(self, settings: LockSettings) -> None:
        self._settings = settings
        self._contention: Contention | None = None
        self._hints: Sequence[str] = ()
        self._lacking = ""

    def hold(
        self,
        key: str,
        *,
        ttl: Duration = DEFAULT_TTL,
        timeout: Duration | None = None,
        renew: bool = True,
        max_hold: Duration | None = None,
        reentrant: bool = False,
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold a lock for a body: ``async with locks.hold("schema") as lease:``.

        Raises:
            LockLost: the lock was lost; the body was cancelled before another may enter.
            LockTimeout, LockUnavailable, LockAlreadyHeld, NotStartedError: as `acquire`.
        """
        return Holding(
            lambda: self.acquire(
                key, ttl=ttl, timeout=timeout, renew=renew, max_hold=max_hold, reentrant=reentrant
            )
        )

    @overload
    async def run_exclusive(
        self, key: str, fn: Callable[[], Awaitable[T]], **options: Unpack[LockOptions]
    ) -> T: ...
    @overload
    async def run_exclusive(
        self, key: str, fn: Callable[[], T], **options: Unpack[LockOptions]
    ) -> T: ...
    async def run_exclusive(
        self, key: str, fn: Callable[[], object], **options: Unpack[LockOptions]
    ) -> object:
        """Run `fn` while holding a lock and return its result. Options as `hold`.

        A function that is not async runs in a thread. Nothing can stop a thread: after a loss or a
        cancellation it runs on, and `LockLost` or the cancellation is raised once it has ended. A
        second cancellation is raised at once, and the lock is kept until the thread has ended.

        Raises:
            LockLost, LockTimeout, LockUnavailable, LockAlreadyHeld, NotStartedError: as `hold`.
        """
        around = self._active().around
        if not callable(fn):
            raise ConfigurationError(f"fn must be a function, not {type(fn).__name__}")
        check_options(options)
        possession = await self._possess(key, **options)
        async with Lease(possession, around.adapter.capabilities):
            return await run_inside(fn, possession, around.supervisor)

    async def acquire(
        self,
        key: str,
        *,
        ttl: Duration = DEFAULT_TTL,
        timeout: Duration | None = None,
        renew: bool = True,
        max_hold: Duration | None = None,
        reentrant: bool = False,
    ) -> Lease:
        """Acquire a lock and return its lease, which is yours to release.

        Nothing is cancelled when such a lock is lost, unless you enter the lease with
        ``async with``: ask it, or await ``lease.lost.wait()``.

        Args:
            key: 1 to 200 bytes without spaces; the name of the application is put before it.
            ttl: seconds after which it is free when its holder is gone; a shorter one than the
                backend's least (0.1, on memcached 3) is raised to it, see `capabilities`.
            timeout: seconds to wait; 0 tries once; None is the setting ``locks.timeout``.
            renew: keep it alive while it is held.
            max_hold: seconds after which it counts as lost although it is renewed.
            reentrant: share it where this task holds it already.

        Raises:
            LockTimeout: somebody else held it all the time.
            LockUnavailable: the server gave no usable answer.
            LockAlreadyHeld: this task holds it.
            NotStartedError: the cluster is not running, or stopped meanwhile.
            ConfigurationError: the key or an option is wrong.
        """
        return await self._lease(
            key, ttl=ttl, timeout=timeout, renew=renew, max_hold=max_hold, reentrant=reentrant
        )

    async def try_acquire(
        self,
        key: str,
        *,
        ttl: Duration = DEFAULT_TTL,
        timeout: Duration = 0,
        renew: bool = True,
        max_hold: Duration | None = None,
        reentrant: bool = False,
    ) -> Lease | None:
        """As `acquire`, but None when somebody else holds it. By default it tries once.

        Raises:
            LockUnavailable: the server gave no usable answer.
            LockAlreadyHeld, NotStartedError, ConfigurationError: as `acquire`.
        """
        try:
            return await self.acquire(
                key, ttl=ttl, timeout=timeout, renew=renew, max_hold=max_hold, reentrant=reentrant
            )
        except LockTimeout:
            return None

    # --- inside --------------------------------------------------------------------------

    async def _lease(
        self, key: str, *, bond: Bond | None = None, **options: Unpack[LockOptions]
    ) -> Lease:
        capabilities = self._active().around.adapter.capabilities
        return Lease(await self._possess(key, **options), capabilities, bond)

    async def _possess(self, key: str, **options: Unpack[LockOptions]) -> Possession:
        contention = self._active()
        terms, key = self._terms(**options), check_key(key)
        held = contention.held.get(key)
        if held is None or not held.belongs_to(asyncio.current_task()):
            return await contention.acquire(contention.attempt(key, terms))
        if not terms.reentrant:
            raise LockAlreadyHeld(key)
        held.handles += 1
        return held

    def _terms(
        self,
        ttl: Duration = DEFAULT_TTL,
        timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
        reentrant: bool = False,
    ) -> Terms:
        return Terms.check(
            ttl=ttl,
            timeout=self._settings.timeout if timeout is None else timeout,
            renew=renew,
            max_hold=max_hold,
            reentrant=reentrant,
            capabilities=self._running().around.adapter.capabilities,
        )

    def _running(self) -> Contention:
        if self._lacking:
            raise ConfigurationError(self._lacking)
        if self._contention is None:
            raise NotStartedError("locks")
        return self._contention

    def _active(self) -> Contention:
        contention = self._running()
        contention.home.check()
        hints, self._hints = self._hints, ()
        for hint in hints:
            log.warning(hint)
        return contention
