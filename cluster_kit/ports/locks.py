"""Locks: one holder at a time, until it lets go or its time is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from cluster_kit.ports.context import AdapterContext

if TYPE_CHECKING:
    import asyncio

    from cluster_kit.ports.context import Health

FenceKind = Literal["strict", "weak", "none"]
WakeUp = Literal["push", "poll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCapabilities:
    """What locks of one backend can promise.

    Attributes:
        backend: its name.
        scope: who is excluded: ``process`` (instances of this process) or ``server``.
        exclusion: until when no two hold a lock, for people.
        ttl_grain: seconds to a multiple of which a ttl is rounded up; 0 for none.
        least_ttl: shortest ttl, seconds; a shorter one is raised to it.
        fence: ``strict`` grows with every grant, ``weak`` may not after the server lost its data.
        wake_up: whether a waiter is told of a release, or asks now and then.
        fair: whether waiters of all instances are served in their order; within an instance
            they are on every backend.
        leash: seconds for which a lock is a holder's of whom the server hears nothing, whatever
            its ttl; infinite where a lock lives for its ttl, and short where it lives and dies
            with a connection.
    """

    backend: str
    scope: Literal["process", "server"]
    exclusion: str
    ttl_grain: float
    least_ttl: float
    fence: FenceKind
    wake_up: WakeUp
    fair: bool
    leash: float = math.inf

    def effective_ttl(self, ttl: float) -> float:
        """Return the ttl a lock has that was asked for `ttl` seconds.

        >>> LockCapabilities(
        ...     backend="x", scope="server", exclusion="", ttl_grain=1.0, least_ttl=3.0,
        ...     fence="weak", wake_up="poll", fair=False,
        ... ).effective_ttl(4.2)
        5.0
        """
        raised = max(ttl, self.least_ttl)
        return math.ceil(raised / self.ttl_grain) * self.ttl_grain if self.ttl_grain else raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What somebody wants.

    Attributes:
        name: of the lock, with the prefix of the application.
        token: of this acquisition, unlike that of any other; hexadecimal digits.
        owner: who wants it, for people; printable, at most 200 bytes.
        ttl: seconds after which the lock is free when nobody renews it.
        turn: how often the holder has asked for another ttl, answered or not.
    """

    name: str
    token: str
    owner: str
    ttl: float
    turn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The lock is ours.

    Attributes:
        fence: greater than that of every earlier grant of this lock, as far as
            `LockCapabilities.fence` promises.
        valid_for: seconds, counted from before the request was sent, in which nobody else can be
            granted the lock; the margin for clocks that run differently is taken off.
        gone: set, with the reason, when the lock is known to be ours no more; None where a backend
            learns that by asking alone.
    """

    fence: int
    valid_for: float
    gone: asyncio.Future[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """Who holds a lock. `seconds_left` is None where the backend does not tell."""

    owner: str
    fence: int | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How often something may be done.

    Attributes:
        name: with the prefix of the application.
        limit: most times in any `period` seconds.
        period: seconds.
    """

    name: str
    limit: int
    period: float


class QuotaKeeper(Protocol):
    """Counts what was admitted, by the server's clock alone."""

    async def admit(self, quota: Quota, token: str, *, timeout: float) -> float:
        """Count one more time if that is within the quota.

        Idempotent: a token that was counted in the last `period` seconds is admitted again. It
        counts from then on, for whoever asks again was not let in before.

        Returns:
            0 when it was admitted, else the seconds after which asking is worth while.

        Raises:
            LockUnavailable: no answer within `timeout` seconds, or an error; it may be counted.
        """
        ...


class Contender(Protocol):
    """One claim while it waits. Used by one task at a time."""

    @property
    def unsure(self) -> bool:
        """Whether a request that was given up may still reach the server, after its repetition.

        It would be granted to nobody. Errors and cancellations of `attempt` need not be told here.
        """
        ...

    @property
    def asked(self) -> bool:
        """Whether the last `attempt` may have told the server anything: else it granted nothing."""
        ...

    async def attempt(self, *, timeout: float) -> Grant | None:
        """Ask once; None when somebody else has it, or is before us where the backend is fair.

        Idempotent: when the lock is ours already, because an answer was lost, that is a grant.
        Whoever is cancelled here, or gets an error, may have the lock: he releases the token if it
        was `asked`.

        Raises:
            LockUnavailable: no answer within `timeout` seconds, or an error; it may be ours.
        """
        ...

    async def changed(self) -> None:
        """Return when another attempt is worth while; never later than a backend's polling."""
        ...

    def leave(self) -> None:
        """Wait no longer. Does not release a granted lock. Idempotent; asks no server."""
        ...


class LockAdapter(Protocol):
    """Keeps locks. What leaves it are errors of `cluster_kit.errors` only.

    A lock that is not renewed is free after its ttl, counted by the server's clock alone.
    """

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        ...

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        Raises:
            ConnectError: unreachable, refused, or not what it should be.
        """
        ...

    async def close(self) -> None:
        """Close everything; releases nothing. Idempotent, legal before `connect`."""
        ...

    def warnings(self) -> Sequence[str]:
        """Return what may break a promise on this server, known since `connect`."""
        ...

    def contend(self, claim: Claim) -> Contender:
        """Begin to wait for a lock. Asks no server."""
        ...

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        """Let a held lock live for `claim.ttl` seconds from now.

        Never makes a lock that is gone. A request that arrives late changes nothing when one of a
        later `Claim.turn` was before it.

        Returns:
            Seconds as `Grant.valid_for`, or None when the lock is not ours any more.

        Raises:
            LockUnavailable: no answer within `timeout` seconds, or an error.
        """
        ...

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        """Free the lock if it is this token's; whether it was. Idempotent.

        Raises:
            LockUnavailable: no answer within `timeout` seconds, or an error.
        """
        ...

    @property
    def quotas(self) -> QuotaKeeper | None:
        """What counts for rate limits; None where the backend cannot."""
        ...

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        """Return who holds a lock, None when it is free. Raises as `release`."""
        ...

    def health(self) -> Health:
        """Return the state as known now, without asking the server."""
        ...


LockFactory = Callable[[str, AdapterContext], LockAdapter]
"""Makes an adapter from its URL. Raises `UnknownOptionError` for query options it does not know."""
