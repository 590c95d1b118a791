"""Locks on memcached: a value that is added once, and changed or deleted by its version alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from cluster_kit.errors import ConnectError, LockUnavailable
from cluster_kit.ports import Grant, Health, LockCapabilities, LockHolder
from cluster_kit_aiocache.fences import read_fence
from cluster_kit_aiocache.memcached_client import (
    DRIVER_ERRORS,
    MEMCACHED,
    Item,
    MemcachedClient,
)
from cluster_kit_aiocache.memcached_options import parse_url
from cluster_kit_aiocache.redis_client import say
from cluster_kit_aiocache.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.ports import AdapterContext, Claim

T = TypeVar("T")
_Call: TypeAlias = Callable[[MemcachedClient], Awaitable[T]]

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
_MARGIN = 1.05  # seconds; a value with N seconds to live may go after N - 1
_FIRST_POLL, _LONGEST_POLL = 0.005, 0.1
_PROBE_SECONDS = 2.0
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
        self._options = parse_url(url)
        self._context = context
        self._client: MemcachedClient | None = None  # while connected
        self._state = State(context, "locks", self._options.url, self._ping)

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        return CAPABILITIES

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Ask the server for its version, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable, or no memcached.
        """
        if self._client is not None:
            return
        client = MEMCACHED.borrow(self._options, self._context)
        try:
            async with asyncio.timeout(self._context.connect_timeout):
                await client.version()
        except BaseException as exc:
            await MEMCACHED.give_back(self._options, self._context)
            if not isinstance(exc, DRIVER_ERRORS):
                raise
            raise ConnectError(self._options.url, say(exc)) from exc
        self._client = client
        self._state.well()

    async def close(self) -> None:
        """Close every connection. What is held stays until its ttl is over."""
        await self._state.close()
        client, self._client = self._client, None
        if client is not None:
            await MEMCACHED.give_back(self._options, self._context)

    def warnings(self) -> Sequence[str]:
        """Return nothing: that it may evict is what `capabilities` says."""
        return ()

    def health(self) -> Health:
        """Return how the last call went."""
        return self._state.health()

    # --- locks -----------------------------------------------------------------------------------

    def contend(self, claim: Claim) -> MemcachedContender:
        """Begin to wait for a lock."""
        return MemcachedContender(self, claim, self._context)

    async def acquire(self, claim: Claim, *, timeout: float) -> int | None:
        """Ask for a lock; return its fence, or None when somebody else has it.

        Raises:
            LockUnavailable: no answer in time, or an error.
        """
        return await self._ask(claim.name, partial(self._take, claim), timeout)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        """Let a held lock live for its ttl from now. Raises as `acquire`."""
        kept = await self._ask(claim.name, partial(self._change, claim, renew=True), timeout)
        return valid_for(claim) if kept else None

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        """Free the lock if it is this token's. Raises as `acquire`."""
        return await self._ask(claim.name, partial(self._change, claim, renew=False), timeout)

    @property
    def quotas(self) -> None:
        """Nothing: there are no rate limits here."""

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        """Return who holds a lock. Raises as `acquire`."""
        item = await self._ask(name, partial(_get, _key(name)), timeout)
        if item is None:
            return None
        fence = await self._ask(name, partial(_get, _fence_key(name)), timeout)
        return LockHolder(
            owner=item.value.decode(errors="replace").partition(" ")[2],
            fence=None if fence is None else read_fence(name, fence.value),
            seconds_left=item.seconds_left,
        )

    async def _take(self, claim: Claim, client: MemcachedClient) -> int | None:
        key, value = _key(claim.name), _value(claim)
        if not await client.add(key, value, round(claim.ttl)):
            item = await client.get(key)
            if item is None or item.value != value:
                return None
            # Ours already: the answer to an earlier request was lost. Its time begins anew.
            if not await client.replace(key, value, round(claim.ttl), item.cas):
                return None
        first = round(self._context.clock.wall() * _MICROSECONDS)
        return read_fence(claim.name, await client.increment(_fence_key(claim.name), first))

    async def _change(self, claim: Claim, client: MemcachedClient, *, renew: bool) -> bool:
        """Renew or delete what is ours; again when a renewal of ours came in between."""
        key, value = _key(claim.name), _value(claim)
        while (item := await client.get(key)) is not None and item.value == value:
            if renew:
                done = await client.replace(key, value, round(claim.ttl), item.cas)
            else:
                done = await client.delete(key, item.cas)
            if done:
                return True
        return False

    async def _ping(self) -> None:
        await self._ask("", MemcachedClient.version, _PROBE_SECONDS)

    async def _ask(self, name: str, call: _Call[T], timeout: float) -> T:
        client = self._client
        if client is None:
            raise LockUnavailable(name, "not connected")
        try:
            async with asyncio.timeout(timeout):
                answer = await call(client)
        except DRIVER_ERRORS as exc:
            self._state.ill(say(exc))
            raise LockUnavailable(name, say(exc)) from exc
        self._state.well()
        return answer


class MemcachedContender:
    """A claim that asks again and again, ever less often."""

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
        fence = await self._locks.acquire(self._claim, timeout=timeout)
        return None if fence is None else Grant(fence=fence, valid_for=valid_for(self._claim))

    async def changed(self) -> None:
        """Return after a pause: memcached tells nobody."""
        await asyncio.sleep(self._pause * self._random.uniform(0.5, 1.5))
        self._pause = min(2 * self._pause, _LONGEST_POLL)

    def leave(self) -> None:
        """Do nothing: the server does not know that somebody waits."""


async def _get(key: bytes, client: MemcachedClient) -> Item | None:
    return await client.get(key)


def valid_for(claim: Claim) -> float:
    """Return how long a lock is certainly ours, from before the request."""
    return round(claim.ttl) - _MARGIN


def _key(name: str) -> bytes:
    return f"ck.l.{name}".encode()


def _fence_key(name: str) -> bytes:
    return f"ck.f.{name}".encode()


def _value(claim: Claim) -> bytes:
    return f"{claim.token} {claim.owner}".encode()
