"""The locks of an instance, on a hub it may share with others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit.errors import LockUnavailable
from cluster_kit.ports import Grant, Health, LockCapabilities, LockHolder
from cluster_kit_memory.lock_table import TABLES, LockTable, Place
from cluster_kit_memory.options import parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.ports import AdapterContext, Claim, Quota

_ADAPTER = "memory"
_PURPOSE = "locks"
_LONGEST_NAP = 60.0

CAPABILITIES = LockCapabilities(
    backend="memory",
    scope="process",
    exclusion="always, within this process",
    ttl_grain=0.0,
    least_ttl=0.1,  # as on servers: what runs here is to run there
    fence="strict",
    wake_up="push",
    fair=True,
)


class MemoryLocks:
    """A `LockAdapter` on a hub of this process.

    Adapters that are connected to one hub are instances of one cluster. `disconnect` and
    `reconnect` stand for a link that breaks: in between everything is `LockUnavailable`, and what
    this instance holds ends with its ttl.

    Args:
        url: see `cluster_kit_memory.options`; its ``path`` concerns the event queue only.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._options = parse_url(url)
        self._context = context
        self._table: LockTable | None = None
        self._linked = False
        self._places: set[Place] = set()
        self._since = context.clock.wall()

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        return CAPABILITIES

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Join the hub.

        Raises:
            ConnectError: the hub belongs to another event loop.
        """
        if self._table is None:
            self._table = TABLES.enter(self._options, self._context.clock)
            self.reconnect()

    async def close(self) -> None:
        """Leave the hub. What is held stays until its ttl is over."""
        table, self._table = self._table, None
        if table is not None:
            self._leave_lines(table)
            self._linked = False
            self._since = self._context.clock.wall()
            TABLES.leave(table)

    def disconnect(self, reason: str = "cut by a test") -> None:
        """Break the link of this instance, as when its connection to a server is lost."""
        if self._linked and self._table is not None:
            self._linked = False
            self._since = self._context.clock.wall()
            self._leave_lines(self._table)
            self._context.emit("connection.lost", adapter=_ADAPTER, purpose=_PURPOSE, reason=reason)

    def reconnect(self) -> None:
        """Mend the link. Idempotent."""
        if not self._linked and self._table is not None:
            self._linked = True
            self._since = self._context.clock.wall()
            self._context.emit(
                "connection.up", adapter=_ADAPTER, purpose=_PURPOSE, url=self._options.url
            )

    def forget(self) -> None:
        """Forget everything, as a server that was restarted without its data."""
        if self._table is not None:
            self._table.clear()

    def warnings(self) -> Sequence[str]:
        """Return nothing: a hub keeps its promises."""
        return ()

    def health(self) -> Health:
        """Return `down` without a link, else `ok`."""
        hub = f"hub {self._options.hub!r}"
        if not self._linked:
            return Health(status="down", detail=f"not connected to {hub}", since=self._since)
        return Health(status="ok", detail=hub, since=self._since)

    # --- locks -----------------------------------------------------------------------------------

    def contend(self, claim: Claim) -> MemoryContender:
        """Begin to wait; the place in line is that of the first attempt."""
        return MemoryContender(self, claim)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:  # noqa: ARG002 - the port's
        """Let a held lock live for its ttl from now.

        Raises:
            LockUnavailable: the link is broken.
        """
        return claim.ttl if self.table(claim.name).renew(claim) else None

    async def release(self, claim: Claim, *, timeout: float) -> bool:  # noqa: ARG002 - the port's
        """Free the lock if it is this token's. Raises as `renew`."""
        return self.table(claim.name).free(claim)

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:  # noqa: ARG002 - the port's
        """Return who holds a lock. Raises as `renew`."""
        table = self.table(name)
        held = table.find(name)
        if held is None:
            return None
        left = table.seconds_left(name)
        return LockHolder(owner=held.claim.owner, fence=held.fence, seconds_left=left)

    @property
    def quotas(self) -> MemoryLocks:
        """What counts for rate limits."""
        return self

    async def admit(self, quota: Quota, token: str, *, timeout: float) -> float:  # noqa: ARG002 - the port's
        """Count a token if it is within the quota; see the port. Raises as `renew`."""
        return self.table(quota.name).admit(quota, token)

    # --- for its contenders ----------------------------------------------------------------------

    def table(self, name: str) -> LockTable:
        """Return the hub's locks.

        Raises:
            LockUnavailable: the link is broken.
        """
        if self._table is None or not self._linked:
            raise LockUnavailable(name, f"no connection to hub {self._options.hub!r}")
        return self._table

    def stand(self, place: Place) -> None:
        """Remember a place, to give it up when the link breaks."""
        self._places.add(place)

    def leave(self, place: Place) -> None:
        """Give a place up."""
        self._places.discard(place)
        if self._table is not None:
            self._table.leave(place)

    def _leave_lines(self, table: LockTable) -> None:
        for place in self._places:
            table.leave(place)
            place.woken.set()
        self._places.clear()


class MemoryContender:
    """A claim in the line of its hub."""

    unsure = False  # nothing is repeated below
    asked = True  # or it may have

    def __init__(self, locks: MemoryLocks, claim: Claim) -> None:
        self._locks = locks
        self._place = Place(claim)

    async def attempt(self, *, timeout: float) -> Grant | None:  # noqa: ARG002 - the port's
        """Take it if it is free and nobody is before this claim.

        Raises:
            LockUnavailable: the link is broken.
        """
        claim = self._place.claim
        table = self._locks.table(claim.name)
        self._place.woken.clear()
        self._locks.stand(self._place)
        held = table.take(self._place)
        if held is None:
            return None
        self._locks.leave(self._place)
        return Grant(fence=held.fence, valid_for=claim.ttl)

    async def changed(self) -> None:
        """Return when it is this claim's turn, or the holder's ttl is over."""
        name = self._place.claim.name
        left = self._locks.table(name).seconds_left(name)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_NAP if left is None else max(left, 0.0)):
                await self._place.woken.wait()

    def leave(self) -> None:
        """Give up the place in line."""
        self._locks.leave(self._place)
