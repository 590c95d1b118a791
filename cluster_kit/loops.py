"""What belongs to one event loop and refuses calls from others; waiting for a while on one."""

from __future__ import annotations

from asyncio import Event, get_running_loop, timeout

from cluster_kit.errors import LifecycleError


class OwnLoop:
    """The event loop that runs when this is made.

    That of another thread is another one, and so is every one of a forked process.

    Args:
        what: belongs to it, for the error.
    """

    __slots__ = ("_loop", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = get_running_loop()

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
