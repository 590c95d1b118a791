"""Locks that are connected by their first use: who never locks has no connection for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectError, LockUnavailable
from cluster_kit.ports import Health

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.ports import (
        AdapterContext,
        Claim,
        Contender,
        Grant,
        LockAdapter,
        LockCapabilities,
        LockHolder,
        Quota,
        QuotaKeeper,
    )

log = logging.getLogger(__name__)


class OnDemandLocks:
    """Implements `cluster_kit.ports.LockAdapter` around another one.

    Args:
        adapter: not connected.
        context: that of the adapter.
        source: what its URL comes from, for errors.
    """

    def __init__(self, adapter: LockAdapter, context: AdapterContext, source: str) -> None:
        self._adapter = adapter
        self._context = context
        self._source = source
        self._since = context.clock.wall()
        self._connected = False
        self._connecting: asyncio.Task[None] | None = None
        self._refused = ""  # why it could not be connected the last time
        self._error: ConnectError | None = None  # likewise

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        return self._adapter.capabilities

    async def connect(self) -> None:
        """Leave it to the first use."""

    async def close(self) -> None:
        """Close it, if it was used."""
        self._connected = False
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await self._adapter.close()

    def warnings(self) -> Sequence[str]:
        """Return nothing yet: they are logged when it is connected."""
        return ()

    def contend(self, claim: Claim) -> OnDemandContender:
        """Begin to wait for a lock."""
        return OnDemandContender(self, self._adapter.contend(claim), claim)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        """Let a held lock live on. Raises as the port says."""
        return await self._adapter.renew(claim, timeout=timeout)

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        """Free a lock; there is none when nothing was ever connected. Raises as the port says."""
        return self._connected and await self._adapter.release(claim, timeout=timeout)

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        """Connect first, then ask. Raises as the port says."""
        await self.ready(name)
        return await self._adapter.inspect(name, timeout=timeout)

    @property
    def quotas(self) -> QuotaKeeper | None:
        """What counts for rate limits, connected first; None where the backend cannot."""
        keeper = self._adapter.quotas
        return None if keeper is None else OnDemandQuotas(self, keeper)

    def health(self) -> Health:
        """Return its state; that of one never used is good."""
        if self._connected:
            return self._adapter.health()
        if self._refused:
            return Health(status="down", detail=self._refused, since=self._since)
        return Health(status="ok", detail="not used yet", since=self._since)

    async def ready(self, name: str) -> None:
        """Connect, unless that is done; all who wait for it wait for one attempt.

        Raises:
            LockUnavailable: it cannot be connected; `retryable` as the reason is.
        """
        if self._connected:
            return
        if self._connecting is None or self._connecting.done():
            self._connecting = self._context.tasks.spawn(self._connect(), name="connect the locks")
        await asyncio.wait({self._connecting})
        if not self._connected:
            reason = self._refused or "the locks are closed"
            lasting = self._error is not None and not self._error.retryable
            raise LockUnavailable(name, reason, retryable=not lasting) from self._error

    async def _connect(self) -> None:
        try:
            await self._adapter.connect()
        except ConnectError as exc:
            if not self._refused:  # who waits asks again and again
                log.warning("locks: %s: %s", self._source, exc)
            self._error, self._refused = exc, f"{self._source}: {exc}"
            self._since = self._context.clock.wall()
            return
        self._connected, self._refused, self._error = True, "", None
        for warning in self._adapter.warnings():
            log.warning("locks: %s", warning)


class OnDemandContender:
    """A claim that waits for the connection before it waits for the lock."""

    def __init__(self, locks: OnDemandLocks, contender: Contender, claim: Claim) -> None:
        self._locks = locks
        self._contender = contender
        self._claim = claim
        self._connected = False

    @property
    def unsure(self) -> bool:
        """Whether a request may still reach the server."""
        return self._contender.unsure

    @property
    def asked(self) -> bool:
        """Whether it was connected, and may have been told anything."""
        return self._connected and self._contender.asked

    async def attempt(self, *, timeout: float) -> Grant | None:
        """Connect first, within the time a connection may take; then ask. Raises as the port."""
        self._connected = False
        await self._locks.ready(self._claim.name)
        self._connected = True
        return await self._contender.attempt(timeout=timeout)

    async def changed(self) -> None:
        """Return when another attempt is worth while."""
        await self._contender.changed()

    def leave(self) -> None:
        """Wait no longer."""
        self._contender.leave()


class OnDemandQuotas:
    """A keeper of quotas that is connected by its first use."""

    def __init__(self, locks: OnDemandLocks, keeper: QuotaKeeper) -> None:
        self._locks = locks
        self._keeper = keeper

    async def admit(self, quota: Quota, token: str, *, timeout: float) -> float:
        """Connect first, then ask. Raises as the port says."""
        await self._locks.ready(quota.name)
        return await self._keeper.admit(quota, token, timeout=timeout)
