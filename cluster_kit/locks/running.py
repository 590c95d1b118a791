"""Functions of users, async or not, run as one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from cluster_kit.supervisor import Supervisor


def as_async(
    fn: Callable[[], object], supervisor: Supervisor, *, name: str
) -> Callable[[], Awaitable[object]]:
    """Return `fn` if it is async, else what runs it in a thread.

    A function whose result is awaitable, such as a partial or a lambda around a coroutine
    function, is called in its thread and its result awaited here.

    Raises:
        ConfigurationError: it cannot be called.
    """
    if not callable(fn):
        raise ConfigurationError(f"fn must be a function, not {type(fn).__name__}")
    if inspect.iscoroutinefunction(fn):
        return cast("Callable[[], Awaitable[object]]", fn)

    async def run() -> object:
        result = await supervisor.run_in_thread(fn, name=name)
        return await result if inspect.isawaitable(result) else result

    return run
