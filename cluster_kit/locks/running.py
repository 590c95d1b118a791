"""Functions of users, async or not, run while a lock is held."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, cast

from cluster_kit.locks.bond import Anchor
from cluster_kit.signature import is_async
from cluster_kit.supervisor import outlast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from cluster_kit.locks.possession import Possession
    from cluster_kit.supervisor import Supervisor


async def run_inside(
    fn: Callable[[], object], possession: Possession, supervisor: Supervisor
) -> object:
    """Call `fn`, an async function here and any other in a thread, and return its result.

    A function whose result is awaitable, such as a lambda around a coroutine function, is called in
    its thread and its result awaited here. A thread that is given up by a
    second cancellation keeps the lock until it has ended.
    """
    if is_async(fn):
        return await cast("Awaitable[object]", fn())
    thread = supervisor.start_thread(fn, name=f"lock {possession.key}")
    try:
        result = await outlast(thread)
    finally:
        if not thread.done():
            _stay_inside(thread, possession, supervisor)
    return await result if inspect.isawaitable(result) else result


def _stay_inside(
    thread: asyncio.Future[object], possession: Possession, supervisor: Supervisor
) -> None:
    anchor = Anchor()
    possession.handles += 1
    possession.bind(anchor)

    async def leave() -> None:
        possession.handles -= 1
        try:
            if not possession.handles:
                await possession.give_back()
        finally:
            possession.unbind(anchor)

    def ended(_: asyncio.Future[object]) -> None:
        supervisor.spawn(leave(), name=f"lock {possession.key} is left by its thread")

    thread.add_done_callback(ended)
