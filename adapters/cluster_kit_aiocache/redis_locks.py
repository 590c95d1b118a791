"""Locks on Redis: scripts that compare a token, a fence, and wake-ups by publish and subscribe."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import NoPermissionError, ResponseError

from cluster_kit.errors import LockUnavailable
from cluster_kit.ports import Grant, Health, LockCapabilities, LockHolder
from cluster_kit_aiocache.fences import LEAST_OF_CLOCKS, read_fence, refused_fence
from cluster_kit_aiocache.lock_scripts import ACQUIRE, ADMIT, FENCE_KEEP_MS, LOOK, RELEASE, RENEW
from cluster_kit_aiocache.redis_server import RedisServer
from cluster_kit_aiocache.wakeups import Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster_kit.ports import AdapterContext, Claim, Quota
    from cluster_kit_aiocache.redis_lines import Lines, Word
    from cluster_kit_aiocache.redis_server import Call

CAPABILITIES = LockCapabilities(
    backend="redis",
    scope="server",
    exclusion="until the server loses data (restart without them, failover, eviction, flush) or "
    "its wall clock is set forward",
    ttl_grain=0.001,
    least_ttl=0.1,
    fence="strict",
    wake_up="push",
    fair=False,
)
_DRIFT = 0.99  # of a ttl; clocks of two machines may run that differently
_MARGIN = 0.002  # seconds; the server expires on whole milliseconds
_POLL_SECONDS = 1.0
_POLL_DEAF_SECONDS = 0.1
_SUBSCRIBE_SECONDS = 0.5
_MICROSECONDS = 1_000_000


class RedisLocks:
    """A `LockAdapter` on one Redis server, or on the primary that sentinels name.

    Args:
        url: see `cluster_kit_aiocache.redis_options`.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._server = RedisServer(url, context, "locks", LockUnavailable)
        self._context = context
        self.wakeups = Wakeups(context)
        self._risk = ""

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        return CAPABILITIES

    @property
    def context(self) -> AdapterContext:
        """Of the instance."""
        return self._context

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Ask the server how it is, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable or refused.
        """
        if not self._server.connected:
            self.wakeups.use(await self._server.connect(self._greet))

    async def _greet(self, lines: Lines) -> None:
        for script in (ACQUIRE, RENEW, RELEASE, LOOK, ADMIT):
            await script.load(lines)
        self._risk = await _risk(lines)

    async def close(self) -> None:
        """Close every connection. What is held stays until its ttl is over."""
        await self.wakeups.close()
        await self._server.close()

    def warnings(self) -> Sequence[str]:
        """Return whether the server may drop locks."""
        return (f"{self._server.options.url} {self._risk}",) if self._risk else ()

    def health(self) -> Health:
        """Return how the last call went."""
        return self._server.health()

    # --- locks -----------------------------------------------------------------------------------

    def contend(self, claim: Claim) -> RedisContender:
        """Begin to wait for a lock."""
        return RedisContender(self, claim)

    async def acquire(
        self,
        claim: Claim,
        told: Callable[[], bytes],
        on_repeat: Callable[[], object],
        *,
        timeout: float,
    ) -> tuple[bool, int]:
        """Ask for a lock; return whether it is ours, and its fence, or its milliseconds left.

        `told` gives what is stored, for each time that the server is asked. `on_repeat` is called
        where a connection is lost and it is asked again.

        Raises:
            LockUnavailable: no answer in time, or an error.
        """
        key = _key(claim.name)
        keys = [key, f"{key}:fence"]
        values: list[Word] = [told, _milliseconds(claim), FENCE_KEEP_MS]
        call = partial(ACQUIRE.run, keys=keys, values=values, on_repeat=on_repeat)
        answer: object = await self._ask(claim.name, call, timeout)
        if not isinstance(answer, list):
            return True, read_fence(claim.name, answer, least=LEAST_OF_CLOCKS)
        words = cast("list[object]", answer)
        match words:
            case [int(left)] if type(left) is int:
                return False, left
            case [_, stored]:
                raise refused_fence(claim.name, stored)
            case _:
                raise _nonsense(claim.name, words)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        """Let a held lock live for its ttl from now. Raises as `acquire`."""
        values: list[str | int] = [_value(claim), claim.token, claim.turn, _milliseconds(claim)]
        call = partial(RENEW.run, keys=[_key(claim.name)], values=values)
        return valid_for(claim) if await self._whether(claim.name, call, timeout) else None

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        """Free the lock if it is this token's, and tell who waits. Raises as `acquire`."""
        values = [claim.token, channel(claim.name)]
        call = partial(RELEASE.run, keys=[_key(claim.name)], values=values)
        return await self._whether(claim.name, call, timeout)

    async def _whether(self, name: str, call: Call, timeout: float) -> bool:
        answer: object = await self._ask(name, call, timeout)
        if type(answer) is not int or answer not in {0, 1}:
            raise _nonsense(name, answer)
        return answer == 1

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        """Return who holds a lock. Raises as `acquire`."""
        key = _key(name)
        call = partial(LOOK.run, keys=[key, f"{key}:fence"], values=[])
        match await self._ask(name, call, timeout):
            case [None, _, _]:
                return None
            case [bytes(value), int(left), fence] if type(left) is int:
                owner = value.decode(errors="replace").partition(" ")[2]
                seconds_left = left / 1000 if left >= 0 else None
                number = None if fence is None else read_fence(name, fence)
                return LockHolder(owner=owner, fence=number, seconds_left=seconds_left)
            case answer:
                raise _nonsense(name, answer)

    @property
    def quotas(self) -> RedisLocks:
        """What counts for rate limits."""
        return self

    async def admit(self, quota: Quota, token: str, *, timeout: float) -> float:
        """Count a token if it is within the quota; see the port. Raises as `acquire`."""
        period = round(quota.period * _MICROSECONDS)
        values: list[str | int] = [token, quota.limit, period]
        call = partial(ADMIT.run, keys=[f"ck:rate:{{{quota.name}}}"], values=values)
        answer: object = await self._ask(quota.name, call, timeout)
        if type(answer) is not int or not 0 <= answer <= period:
            raise _nonsense(quota.name, answer)
        return answer / _MICROSECONDS

    async def _ask(self, name: str, call: Call, timeout: float) -> Any:  # noqa: ANN401 - the driver's
        try:
            return await self._server.ask(name, call, timeout)
        except LockUnavailable as exc:
            if not isinstance(exc.__cause__, NoPermissionError):
                raise
            raise LockUnavailable(name, exc.reason, retryable=False) from exc.__cause__


class RedisContender:
    """A claim that waits to hear of a release.

    Attributes:
        unsure: whether the last request was repeated for want of a connection: the first may come
            yet.
        asked: whether it was made, which is when there is a connection for it.
    """

    def __init__(self, locks: RedisLocks, claim: Claim) -> None:
        self._locks = locks
        self._claim = claim
        self._channel = channel(claim.name)
        self._woken = asyncio.Event()
        self._listens = False
        self._left = 0.0
        self.unsure = False
        self.asked = False

    def _value(self) -> bytes:
        self.asked = True
        return _value(self._claim).encode()

    async def attempt(self, *, timeout: float) -> Grant | None:
        """Ask the server once.

        Raises:
            LockUnavailable: no answer in time, or an error.
        """
        self._woken.clear()
        self.unsure = self.asked = False
        acquire = partial(self._locks.acquire, self._claim, self._value, self._repeated)
        granted, number = await acquire(timeout=timeout)
        if granted:
            return Grant(fence=number, valid_for=valid_for(self._claim))
        self._left = number / 1000 if number >= 0 else math.inf  # one without an end is not ours
        return None

    def _repeated(self) -> None:
        self.unsure = True

    async def changed(self) -> None:
        """Return at a release, when the holder's ttl is over, or when it is time to ask anyway.

        The first call returns as soon as a release can be heard: one before that was not.
        """
        wakeups, context = self._locks.wakeups, self._locks.context
        if not self._listens:
            self._listens = True
            await wakeups.listen(self._channel, self._woken, timeout=_SUBSCRIBE_SECONDS)
            return
        poll = _POLL_SECONDS if wakeups.hears(self._channel) else _POLL_DEAF_SECONDS
        spread = context.random.uniform(0.8, 1.2)
        pause = min(self._left + context.random.uniform(0.001, 0.01), poll * spread)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()

    def leave(self) -> None:
        """Listen no more."""
        if self._listens:
            self._locks.wakeups.leave(self._channel, self._woken)


async def _risk(lines: Lines) -> str:
    """Return why the server may lose locks that are held; empty when it keeps them."""
    try:
        told: bytes = await lines.execute_command("INFO", "memory")
    except ResponseError:  # forbidden to this user, or unknown, as where it was renamed
        return (
            "does not let this user ask (INFO) whether it evicts keys when its memory is full: "
            "if it does, a lock may vanish while it is held"
        )
    parted = (line.partition(":") for line in told.decode().splitlines())
    info = {name: value for name, _, value in parted}
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not int(info.get("maxmemory", "0")):
        return ""
    return (
        f"evicts keys when its memory is full (maxmemory-policy {policy}): a lock may vanish "
        "while it is held; set it to noeviction, or give the locks a server of their own"
    )


def _nonsense(name: str, answer: object) -> LockUnavailable:
    return LockUnavailable(name, f"the server answers none of what was asked: {answer!r:.60}")


def valid_for(claim: Claim) -> float:
    """Return how long a lock is certainly ours, from before the request."""
    return _milliseconds(claim) / 1000 * _DRIFT - _MARGIN


def channel(name: str) -> str:
    """Return where releases of a lock are told."""
    return f"ck:unlocked:{name}"


def _key(name: str) -> str:
    # Braces: lock and fence are on one node of a server that spreads its keys.
    return f"ck:lock:{{{name}}}"


def _value(claim: Claim) -> str:
    turn = f".{claim.turn}" if claim.turn else ""
    return f"{claim.token}{turn} {claim.owner}"


def _milliseconds(claim: Claim) -> int:
    return round(claim.ttl * 1000)
