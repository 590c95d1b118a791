"""What a user gives to have values loaded."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from cluster_kit.clock import Duration
from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from cluster_kit.supervisor import Supervisor

T = TypeVar("T")

Loader = Callable[[], Awaitable[T] | T]
"""Loads a value. Async, or sync, then in a thread."""

Condition = Callable[[T], Awaitable[bool] | bool]
"""Whether a loaded value is to be kept."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """What a loader may return to say more than the value.

    Attributes:
        value: that was loaded.
        ttl: how long it counts, seconds; None leaves it to the call and the cache.
        keep: False returns the value to the callers and keeps it nowhere.
    """

    value: T
    ttl: Duration | None = None
    keep: bool = True


def check_callable(fn: object) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigurationError: it cannot.
    """
    if not callable(fn):
        raise ConfigurationError(f"fn must be a function, not {type(fn).__name__}")


async def call(
    fn: Callable[..., object], supervisor: Supervisor, name: str, *args: object
) -> object:
    """Call a user's function: async here, any other in a thread."""
    result = (
        fn(*args)
        if inspect.iscoroutinefunction(fn)
        else await supervisor.run_in_thread(partial(fn, *args), name=name)
    )
    return await result if inspect.isawaitable(result) else result
