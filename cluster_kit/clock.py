"""Time, asked for in one place: monotonic for durations, wall time for timestamps."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cluster_kit.errors import ConfigurationError

Duration = float | int | timedelta
"""Seconds, or a timedelta."""

MAX_WAIT = 30 * 24 * 3600.0
"""Longest delay and ttl, seconds (30 days)."""


_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # not every system has it


class Clock(Protocol):
    """What tells the time. The two readings are never mixed."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back. For durations."""
        ...

    def wall(self) -> float:
        """Seconds since 1970 UTC; may jump. For timestamps that leave the process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed point."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970 UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        await asyncio.sleep(seconds)


class BootClock(SystemClock):
    """The machine's clock, of which `monotonic` also counts the time it was suspended.

    Others did not wait for a machine that slept: what is ours for some seconds needs this clock.
    """

    def monotonic(self) -> float:
        """Seconds since the machine was started, where the system tells; else as the base."""
        return super().monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def utc(timestamp: float) -> datetime:
    """Return the wall time `timestamp` (seconds since 1970) as an aware datetime."""
    return datetime.fromtimestamp(timestamp, UTC)


def seconds(name: str, value: object, *, zero: bool = True, limit: float = math.inf) -> float:
    """Check a duration given by a caller and return it in seconds.

    Args:
        name: of the argument, for the error.
        value: float seconds or a timedelta.
        zero: whether 0 is legal.
        limit: largest legal value, seconds.

    Raises:
        ConfigurationError: not a number, not finite, negative, zero where that is not legal, or
            over the limit.

    >>> seconds("delay", timedelta(minutes=1))
    60.0
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        text = f"{name} must be seconds or a timedelta, not {type(value).__name__}"
        raise ConfigurationError(text)
    else:
        result = float(value) if abs(value) < 1e300 else math.inf  # noqa: PLR2004 - int overflow
    if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
        least = "0 or more" if zero else "above 0"
        raise ConfigurationError(f"{name} must be finite and {least} seconds, not {value!r}")
    if result > limit:
        raise ConfigurationError(f"{name} may be at most {limit:,.10g} seconds, not {value!r}")
    return result
