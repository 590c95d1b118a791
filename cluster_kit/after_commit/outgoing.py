"""What was committed and is on its way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit.errors import NotStartedError, PublishUnconfirmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.after_commit.parcel import Parcel
    from cluster_kit.supervisor import Supervisor

CANCEL_GRACE = 1.0
"""Seconds a publish that is cancelled may take to end."""

STOPPED = "the cluster was stopped before the broker had answered"
"""Why a message that was given up at a stop may or may not be stored."""


class Outgoing:
    """Publishes parcels, begun in the order they come in. Belongs to one event loop.

    Args:
        supervisor: runs them.
        failed: told of each that could not be published; never raises.

    Attributes:
        to_begin: how many are to be published in the coming turn of the event loop.
    """

    def __init__(self, supervisor: Supervisor, failed: Callable[[Parcel, Exception], None]) -> None:
        self._supervisor = supervisor
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._sending: dict[asyncio.Task[None], Parcel] = {}
        self.to_begin: int = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    def take(self, parcel: Parcel) -> None:
        """Publish `parcel`. Returns at once, never raises, and may be called in any thread."""
        if not self._in_loop(self._put, parcel):
            self._failed(parcel, NotStartedError("publishing after a commit"))

    def give_up(self, parcel: Parcel, error: Exception) -> None:
        """Have it told that `parcel` is not published. As `take`."""
        if not self._in_loop(self._failed, parcel, error):
            self._failed(parcel, error)

    async def close(self, timeout: float) -> list[str]:
        """Wait for what is on its way, at most `timeout` seconds, and then take nothing more.

        Returns the ids of what could not be published in time.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._empty.wait()
        finally:
            self._closed = True  # before anything is given up: nothing joins what is cancelled
        return await self._give_up()

    async def _give_up(self) -> list[str]:
        sending = dict(self._sending)
        for task in sending:
            task.cancel()
        if sending:  # the last may have been sent in the turn in which time was up
            await asyncio.wait(set(sending), timeout=CANCEL_GRACE)
        return [parcel.id for parcel in sending.values()]

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> bool:
        """Call in the event loop; return whether there is one, still."""
        if _running_loop() is self._loop:
            call(*arguments)
            return True
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # it is closed
            return False
        return True

    def _put(self, parcel: Parcel) -> None:
        if self._closed:
            self._failed(parcel, NotStartedError("publishing after a commit"))
            return
        name = f"publish {parcel.kind} {parcel.id}"
        task = self._supervisor.spawn(self._send(parcel), name=name)
        self._sending[task] = parcel
        self.to_begin += 1
        self._empty.clear()
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        parcel = self._sending.pop(task)
        if task.cancelled():
            self._failed(parcel, PublishUnconfirmed(parcel.id, STOPPED))
        if not self._sending:
            self.to_begin = 0
            self._empty.set()

    async def _send(self, parcel: Parcel) -> None:
        self.to_begin -= 1
        try:
            await parcel.send()
        except Exception as exc:  # noqa: BLE001 - told to whoever listens for it
            self._failed(parcel, exc)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
