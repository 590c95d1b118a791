"""Fences as a server keeps them, which others can write to."""

from __future__ import annotations

from cluster_kit.errors import LockUnavailable

MOST = 2**53
"""Up to here each number is another one to all who count, the scripts of Redis included."""

_MOST_DIGITS = len(str(MOST))

LEAST_OF_CLOCKS = 2**50
"""Microseconds since 1970, in the year 2005: no counter that begins with a clock is below."""


def read_fence(name: str, stored: object, *, least: int = 1) -> int:
    """Return a stored fence, which is `least` or more.

    Raises:
        LockUnavailable: it is no number, or none that can grow; somebody else has written it.
    """
    fence = 0
    if type(stored) is int:  # no bool, which servers tell, too
        fence = stored
    elif isinstance(stored, bytes) and stored.isdigit() and len(stored) <= _MOST_DIGITS:
        fence = int(stored)
    if not least <= fence < MOST:
        raise refused_fence(name, stored)
    return fence


def refused_fence(name: str, stored: object) -> LockUnavailable:
    """Return what to raise where a stored fence is no number, or none that can grow."""
    return LockUnavailable(name, f"its stored fence is none of ours: {stored!r:.60}")
