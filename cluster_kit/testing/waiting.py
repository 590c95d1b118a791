"""Waiting for what should happen, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds that a wait lasts at most. Long: it only ever ends a test that fails anyway."""


@overload
async def eventually(
    ask: Callable[[], Awaitable[T]],
    accept: Callable[[T], object] = ...,
    *,
    timeout: float = ...,
    interval: float = ...,
) -> T: ...
@overload
async def eventually(
    ask: Callable[[], T],
    accept: Callable[[T], object] = ...,
    *,
    timeout: float = ...,
    interval: float = ...,
) -> T: ...
async def eventually(
    ask: Callable[[], object],
    accept: Callable[[Any], object] = bool,
    *,
    timeout: float = PATIENCE,
    interval: float = 0.02,
) -> object:
    """Ask again and again until the answer is accepted, and return it.

    Args:
        ask: a function or coroutine function without arguments.
        accept: says whether an answer will do; by default a true one.
        timeout: seconds after which to give up.
        interval: seconds between two questions.

    Raises:
        AssertionError: no answer was accepted in time; the text has the last one.
    """
    seen: object = "no answer at all"
    try:
        async with asyncio.timeout(timeout):
            while True:
                answer = ask()
                value = await answer if inspect.isawaitable(answer) else answer
                if accept(value):
                    return value
                seen = value
                await asyncio.sleep(interval)
    except TimeoutError:
        raise AssertionError(f"waited {timeout:g} s in vain; seen last: {seen!r}") from None
