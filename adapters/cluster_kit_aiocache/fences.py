"""Fences as a server keeps them, which others can write to."""

from __future__ import annotations

from cluster_kit.errors import LockUnavailable

MOST = 2**53
"""Up to here each number is another one to all who count, the scripts of Redis included."""


def read_fence(name: str, stored: bytes | str | int) -> int:
    """Return a stored fence.

    Raises:
        LockUnavailable: it is no number, or none that can grow; somebody else has written it.
    """
    try:
        fence = int(stored)
    except ValueError as exc:
        raise LockUnavailable(name, f"its stored fence is no number: {stored!r:.60}") from exc
    if not 0 < fence < MOST:
        raise LockUnavailable(name, f"its stored fence is none of ours: {stored!r:.60}")
    return fence
