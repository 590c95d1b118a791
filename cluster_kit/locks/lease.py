"""What the holder of a lock has in hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import LockLost
from cluster_kit.locks.bond import Bond
from cluster_kit.locks.states import LeaseState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from cluster_kit.locks.possession import Possession
    from cluster_kit.ports import LockCapabilities


class Holding:
    """Acquires a lease when it is entered, and ties the body to it."""

    def __init__(self, acquire: Callable[[], Awaitable[Lease]]) -> None:
        self._acquire = acquire
        self._entered = False
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        """Wait for the lock. Raises as `LockManager.hold`."""
        if self._entered:
            raise RuntimeError("what hold() returned can be entered once")
        self._entered = True
        self._lease = await self._acquire()
        return await self._lease.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back. Raises as `Lease`."""
        if self._lease is not None:
            await self._lease.__aexit__(kind, error, traceback)


class Lease:
    """A lock that was acquired. Got from `LockManager`.

    ``async with lease:`` ties a body to it: when the lock is lost, the body is cancelled before
    anybody else may enter, and `LockLost` is raised; at its end the lock is given back. A lease
    that is not used so must be given back with `release`, by any task.

    Everything is read from the clock, so it is true also right after the event loop was blocked.
    Any thread may read it; a forked process reads that it is lost.

    Args:
        possession: begun.
        capabilities: of the backend.
        bond: ties its body, to other leases, too; by default one of its own does.
    """

    def __init__(
        self, possession: Possession, capabilities: LockCapabilities, bond: Bond | None = None
    ) -> None:
        self._possession = possession
        self._capabilities = capabilities
        self._common = bond
        self._bond: Bond | None = None  # while a body is inside
        self._released: LeaseState | None = None  # what it was when it was given back

    def __repr__(self) -> str:
        return f"<Lease {self.key!r} {self.state.value}>"

    @property
    def key(self) -> str:
        """Of the lock, without the prefix of the application."""
        return self._possession.key

    @property
    def app(self) -> str:
        """Name of the application whose lock it is."""
        return self._possession.app

    @property
    def fence(self) -> int:
        """A number that grows with every acquisition of this lock, to be checked by what it guards.

        Raises:
            LockLost: the lock is not ours any more.
        """
        self.check()
        return self._possession.fence

    @property
    def state(self) -> LeaseState:
        """What it is now."""
        return self._released or self._possession.read()

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lock is lost: ``await lease.lost.wait()``."""
        return self._possession.lost

    def valid_for(self) -> float:
        """Return the seconds it is certainly ours without another renewal; 0 when it is not."""
        return 0.0 if self._released else self._possession.seconds_left()

    def check(self) -> None:
        """Do nothing while the lock is ours.

        Raises:
            LockLost: it is not.
        """
        if self._released:
            lost = self._released is LeaseState.LOST
            reason = f"lost: {self._possession.reason}" if lost else "it was given back"
            raise LockLost(self.key, reason)
        self._possession.check()

    async def extend(self, ttl: Duration) -> None:
        """Let it live for `ttl` seconds from now; a renewed one is renewed by that from now on.

        A ttl that is too short for the backend is raised, as that of `LockManager.acquire`.

        Raises:
            ConfigurationError: `ttl` is no duration above 0.
            LockLost: the lock is not ours any more.
            LockUnavailable: the server did not answer. It is ours as long as before, and no longer
                than a shorter `ttl` allows, which the server may have set.
            LifecycleError: called on another event loop.
        """
        self._possession.home.check()
        asked = seconds("ttl", ttl, zero=False, limit=MAX_WAIT)
        self.check()
        await self._possession.extend(self._capabilities.effective_ttl(asked))

    async def release(self) -> None:
        """Give the lock back. Twice, or after a loss, is no error.

        Never fails for want of a server: then the lock is freed in the background, or by its ttl.

        Raises:
            LifecycleError: called on another event loop.
        """
        if not self._released:
            self._possession.home.check()
            lost = self._possession.read() is LeaseState.LOST
            self._released = LeaseState.LOST if lost else LeaseState.RELEASED
            self._possession.handles -= 1
            if self._possession.handles == 0:
                await self._possession.give_back()

    async def __aenter__(self) -> Self:
        """Tie the current task to it.

        Raises:
            LockLost: the lock is not ours any more.
            LifecycleError: entered on another event loop.
        """
        self._possession.home.check()
        try:
            self.check()
        except LockLost:
            await self.release()
            raise
        if self._bond is not None:
            raise RuntimeError(f"lease {self.key!r} protects another body already")
        self._bond = self._common or Bond()
        self._possession.bind(self._bond)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back.

        Raises:
            LockLost: the lock was lost meanwhile. Another error of the body is left as it is, and
                so is a cancellation that came from elsewhere.
        """
        bond, self._bond = self._bond, None
        ours = bond is not None and self._possession.unbind(bond)
        lost = self.state is LeaseState.LOST
        reason = self._possession.reason
        await self.release()
        cancelled = ours and isinstance(error, asyncio.CancelledError)
        if lost and (error is None or cancelled):
            raise LockLost(self.key, f"lost while in use: {reason}") from error
