"""What a caller asks of a lock, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self, TypedDict

from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import ConfigurationError
from cluster_kit.names import check_name
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.ports import LockCapabilities

DEFAULT_TTL = 30.0
"""Seconds."""

_LONGEST_ANSWER = 2.0  # seconds
_SHORTEST_ANSWER = 0.05  # seconds; less would fail on a busy machine for no reason
_ANSWERS_IN_A_TTL = 6


class LockOptions(TypedDict, total=False):
    """What every call that acquires may be told; see `LockManager.acquire`."""

    ttl: Duration
    timeout: Duration | None
    renew: bool
    max_hold: Duration | None
    reentrant: bool


def check_options(options: Mapping[str, object]) -> None:
    """Refuse what is none of `LockOptions`.

    Raises:
        ConfigurationError: it names it, and what may have been meant.
    """
    known = LockOptions.__annotations__
    for name in options:
        if name not in known:
            raise ConfigurationError(f"locks have no option {name!r}{suggestion(name, known)}")


def check_key(key: object) -> str:
    """Return a key if it is legal, as `check_name` says."""
    return check_name("lock key", key)


class Terms(NamedTuple):
    """Options of an acquisition. Durations are seconds.

    Attributes:
        ttl: after which the lock is free when its holder is gone, as the backend rounds it.
        timeout: how long to wait; 0 tries once.
        renew: keep it alive while it is held.
        max_hold: after which it counts as lost although it is renewed.
        reentrant: share a lock the asking task has already.
    """

    ttl: float
    timeout: float
    renew: bool
    max_hold: float | None
    reentrant: bool

    @classmethod
    def check(
        cls,
        *,
        ttl: Duration,
        timeout: Duration,
        renew: bool,
        max_hold: Duration | None,
        reentrant: bool,
        capabilities: LockCapabilities,
    ) -> Self:
        """Check what a caller passed.

        Raises:
            ConfigurationError: a duration or flag is wrong.
        """
        for name, flag in (("renew", renew), ("reentrant", reentrant)):
            if not isinstance(flag, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"{name} must be a bool, not {type(flag).__name__}")
        asked = seconds("ttl", ttl, zero=False, limit=MAX_WAIT)
        return cls(
            ttl=capabilities.effective_ttl(asked),
            timeout=seconds("timeout", timeout, limit=MAX_WAIT),
            renew=renew,
            max_hold=None if max_hold is None else seconds("max_hold", max_hold, zero=False),
            reentrant=reentrant,
        )


def answer_timeout(ttl: float) -> float:
    """Return how long to wait for one answer of the server, seconds.

    >>> answer_timeout(30), answer_timeout(3)
    (2.0, 0.5)
    """
    return min(max(ttl / _ANSWERS_IN_A_TTL, _SHORTEST_ANSWER), _LONGEST_ANSWER)
