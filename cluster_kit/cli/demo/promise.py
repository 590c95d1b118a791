"""A promise, and what its proofs have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.cli.demo.stage import Stage

EARLY = 0.02
"""Seconds by which clocks of one machine, read twice, may seem to disagree."""

LATE = 2.0
"""Seconds by which anything may be late, generously."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise and the coroutine that proves it.

    `prove` returns what happened, or raises `BrokenPromise`.
    """

    text: str
    prove: Callable[[Stage], Awaitable[str]]


def listed(values: Iterable[object]) -> str:
    """Return them as text, separated by commas."""
    return ", ".join(map(str, values))


def milliseconds(seconds: float) -> str:
    """Return a duration as text.

    >>> milliseconds(0.0123)
    '12 ms'
    """
    return f"{seconds * 1000:.0f} ms"
