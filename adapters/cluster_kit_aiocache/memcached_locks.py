"""Locks on memcached: a value that is added once, and changed or deleted by its version alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.errors import LockUnavailable
from cluster_kit.ports import Grant, Health, LockCapabilities, LockHolder
from cluster_kit_aiocache.fences import LEAST_OF_CLOCKS, read_fence
from cluster_kit_aiocache.memcached_client import key_of
from cluster_kit_aiocache.memcached_clock import Reading, ServerClock
from cluster_kit_aiocache.memcached_server import MemcachedServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.ports import AdapterContext, Claim
    from cluster_kit_aiocache.memcached_client import Item, MemcachedClient

CAPABILITIES = LockCapabilities(
    backend="memcached",
    scope="server",
    exclusion="until the server restarts or evicts the lock for want of memory",
    ttl_grain=1.0,
    least_ttl=3.0,
    fence="weak",
    wake_up="poll",
    fair=False,
)
_FIRST_POLL, _LONGEST_POLL = 0.005, 0.05
_CLOCK_SECONDS = 3.0
_MICROSECONDS = 1_000_000


class MemcachedLocks:
    """A `LockAdapter` on one memcached.

    Args:
        url: see `cluster_kit_aiocache.memcached_options`.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._server = MemcachedServer(url, context, "locks", LockUnavailable)
        self._context = context
        self._clock: ServerClock | None = None  # while connected

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        return CAPABILITIES

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Ask the server for its version and its clock, within the context's `connect_timeout`.

        A clock that is not known by then is waited for by the first lock.

        Raises:
            ConnectError: unreachable, or no memcached.
        """
        if self._clock is not None:
            return
        end = asyncio.get_running_loop().time() + self._context.connect_timeout
        await self._server.connect()
        self._clock = ServerClock(self._server, self._context)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._clock.reading()

    async def close(self) -> None:
        """Close every connection. What is held stays until its ttl is over."""
        clock, self._clock = self._clock, None
        if clock is not None:
            await clock.close()
        await self._server.close()

    def warnings(self) -> Sequence[str]:
        """Return nothing: that it may evict is what `capabilities` says."""
        return ()

    def health(self) -> Health:
        """Return how the last call went."""
        return self._server.health()

    # --- locks -----------------------------------------------------------------------------------

    def contend(self, claim: Claim) -> MemcachedContender:
        """Begin to wait for a lock."""
        return MemcachedContender(self, claim, self._context)

    async def acquire(self, claim: Claim, *, timeout: float) -> Grant | None:
        """Ask for a lock; None when somebody else has it.

        Where the server's clock is not known, it waits for that first.

        Raises:
            LockUnavailable: no answer in time, or an error.
        """
        put = await self._putting(claim, max(timeout, _CLOCK_SECONDS))
        return await self._server.ask(claim.name, partial(self._take, claim, put), timeout)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        """Let a held lock live for its ttl from now. Raises as `acquire`."""
        put = await self._putting(claim, timeout)
        left = await self._server.ask(claim.name, partial(_renew, claim, put), timeout)
        if left is not None and left <= 0:
            raise LockUnavailable(claim.name, "the server has stood still, and its clock was late")
        return left

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        """Free the lock if it is this token's. Raises as `acquire`."""
        return await self._server.ask(claim.name, partial(_release, claim), timeout)

    @property
    def quotas(self) -> None:
        """Nothing: there are no rate limits here."""

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        """Return who holds a lock. Raises as `acquire`."""
        item = await self._server.ask(name, partial(_get, _key(name)), timeout)
        if item is None:
            return None
        fence = await self._server.ask(name, partial(_get, _fence_key(name)), timeout)
        return LockHolder(
            owner=item.value.decode(errors="replace").partition(" ")[2],
            fence=None if fence is None else _read_fence(name, fence.value),
            seconds_left=item.seconds_left,
        )

    async def _putting(self, claim: Claim, timeout: float) -> _Put:
        """Return what stores a lock, with the time it counts from. Raises as `acquire`."""
        clock = self._clock
        if clock is None:
            raise LockUnavailable(claim.name, "not connected")
        since = clock.now()
        try:
            async with asyncio.timeout(timeout):
                return _Put(claim, clock, since, await clock.reading())
        except TimeoutError as exc:
            raise LockUnavailable(claim.name, "the server's clock could not be read") from exc

    async def _take(self, claim: Claim, put: _Put, client: MemcachedClient) -> Grant | None:
        left = await put(client, None)
        if left is None:
            # Ours already, where the answer to an earlier request was lost: its time begins anew.
            left = await _renew(claim, put, client)
        if left is None:
            return None
        first = max(round(self._context.clock.wall() * _MICROSECONDS), LEAST_OF_CLOCKS)
        fence = await client.increment(_fence_key(claim.name), first)
        return Grant(fence=_read_fence(claim.name, fence), valid_for=left)


class MemcachedContender:
    """A claim that asks again and again, ever less often."""

    unsure = False  # nothing is repeated below
    asked = True  # or it may have

    def __init__(self, locks: MemcachedLocks, claim: Claim, context: AdapterContext) -> None:
        self._locks = locks
        self._claim = claim
        self._random = context.random
        self._pause = _FIRST_POLL

    async def attempt(self, *, timeout: float) -> Grant | None:
        """Ask the server once.

        Raises:
            LockUnavailable: no answer in time, or an error.
        """
        return await self._locks.acquire(self._claim, timeout=timeout)

    async def changed(self) -> None:
        """Return after a pause: memcached tells nobody."""
        await asyncio.sleep(self._pause * self._random.uniform(0.5, 1.5))
        self._pause = min(2 * self._pause, _LONGEST_POLL)

    def leave(self) -> None:
        """Do nothing: the server does not know that somebody waits."""


async def _get(key: bytes, client: MemcachedClient) -> Item | None:
    return await client.get(key)


@dataclass(frozen=True, slots=True)
class _Put:
    """Stores a lock, and tells for how long it is certainly there.

    Attributes:
        since: reading of the clock from which that counts.
    """

    claim: Claim
    clock: ServerClock
    since: float
    reading: Reading

    async def __call__(self, client: MemcachedClient, cas: int | None) -> float | None:
        """Store it over that of `cas`, or where there is none; None when it was not stored.

        Raises:
            LockUnavailable: the server was restarted, or has evicted what its clock is read by.
        """
        key, value, ttl = _key(self.claim.name), _value(self.claim), round(self.claim.ttl)
        left, done = await client.store_beside(self.reading.key, key, value, ttl, cas)
        if not done:
            return None
        if left is None:
            self.clock.doubt(self.reading)
            raise LockUnavailable(
                self.claim.name, "the server has lost values; its clock is read anew"
            )
        return self.reading.certain_until(left, ttl) - self.since


async def _renew(claim: Claim, put: _Put, client: MemcachedClient) -> float | None:
    """Renew what is ours; again when a renewal of ours came in between."""
    while (cas := await _ours(claim, client)) is not None:
        if (left := await put(client, cas)) is not None:
            return left
    return None


async def _release(claim: Claim, client: MemcachedClient) -> bool:
    """Delete what is ours; again when a renewal of ours came in between."""
    while (cas := await _ours(claim, client)) is not None:
        if await client.delete(_key(claim.name), cas):
            return True
    return False


async def _ours(claim: Claim, client: MemcachedClient) -> int | None:
    """Return the version of a lock that is ours."""
    item = await client.get(_key(claim.name))
    return None if item is None or item.value != _value(claim) else item.cas


def _key(name: str) -> bytes:
    return key_of(f"ck.l.{name}")


def _fence_key(name: str) -> bytes:
    return key_of(f"ck.f.{name}")


def _read_fence(name: str, stored: bytes | int) -> int:
    # A counter of the server goes on with 0 after 2^64: so one that others had set is refused, too.
    return read_fence(name, stored, least=LEAST_OF_CLOCKS)


def _value(claim: Claim) -> bytes:
    return f"{claim.token} {claim.owner}".encode()
