"""What belongs to one event loop and refuses calls from others; waiting for a while on one."""

from __future__ import annotations

from asyncio import Event, get_running_loop, timeout
from collections.abc import Callable
from os import getpid
from typing import TypeVarTuple

from cluster_kit.errors import LifecycleError

Arguments = TypeVarTuple("Arguments")


class OwnLoop:
    """The event loop that runs when this is made.

    That of another thread is another one, and so is every one of a forked process.

    Args:
        what: belongs to it, for the error.
    """

    __slots__ = ("_loop", "_pid", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = get_running_loop()
        self._pid = getpid()

    @property
    def is_here(self) -> bool:
        """Whether it is the one that runs where this is asked."""
        try:
            return get_running_loop() is self._loop
        except RuntimeError:
            return False

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the one it is in."""
        return getpid() != self._pid

    def call_soon(self, callback: Callable[[*Arguments], object], *args: *Arguments) -> None:
        """Call something on it, from any thread.

        Raises:
            RuntimeError: it is closed.
        """
        self._loop.call_soon_threadsafe(callback, *args)

    def check(self) -> None:
        """Refuse a call that does not come from it.

        Raises:
            LifecycleError: another event loop runs here, or none.
        """
        try:
            if get_running_loop() is self._loop:
                return
        except RuntimeError:
            pass
        raise LifecycleError(
            f"{self._what}: the cluster was started on another event loop, and nothing was done; "
            "a thread calls asyncio.run_coroutine_threadsafe, a forked process starts its own"
        )


async def set_within(event: Event, seconds: float | None) -> bool:
    """Wait until `event` is set, at most so many seconds, and return whether it is."""
    try:
        async with timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
