"""Promises to load: left in a store, prolonged while the load goes on, taken back when it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.errors import CacheUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.cache.found import Found
    from cluster_kit.cache.remote import Remote
    from cluster_kit.cache.tools import Tools

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # between two tries to take one back


class Right:
    """The right to store what is loaded: a promise in the store, and what it was made over.

    Args:
        tools: of the cache.
        remote: the store.
        key: that is loaded.
        found: what it is made over.

    Attributes:
        remote, key, found: see there.
        head: by which the store knows the promise.
        intact: whether it stood, not invalidated, when it was last prolonged or withdrawn.
        refused: whether the store would not have the promise, which then is not there.
    """

    def __init__(self, tools: Tools, remote: Remote, key: str, found: Found) -> None:
        self.remote: Remote = remote
        self.key: str = key
        self.found: Found = found
        self._clock = tools.clock
        self._ttl = tools.promise_ttl
        self._promise = remote.promised(found, self._clock.wall() + self._ttl)
        self.head: bytes = self._promise.head
        self._over = self._clock.monotonic() + self._ttl
        self.intact: bool = True
        self.refused: bool = False
        self._spawn = tools.supervisor.spawn
        self._making: asyncio.Task[bool | None] | None = None

    @property
    def over(self) -> bool:
        """Whether it counts no more, whoever looks at it."""
        return self._clock.monotonic() >= self._over

    async def make(self) -> bool | None:
        """Leave the promise; False when somebody else did, or the key changed.

        None when the store refused it, or did not answer: then it may be there or come yet. Who is
        cancelled meanwhile leaves the call to its end: one that is cut short costs a connection.
        """
        self._making = self._spawn(self._make(), name=f"promise:{self.key}")
        return await asyncio.shield(self._making)

    async def _make(self) -> bool | None:
        try:
            return await self.remote.promise(self.key, self.found, self._promise)
        except CacheUnavailable as exc:
            self.refused = exc.refused
            return None

    async def keep(self, load: asyncio.Task[object], lost: Callable[[], None]) -> None:
        """Prolong the promise, but not while `load` is told to end and does not.

        A timeout of the loader's own tells it so, too, and takes that back. When the promise is
        not there any more, for its key was invalidated, or nobody can tell, `lost` is called.
        """
        while True:
            await self._clock.sleep(self._ttl / 3)
            if load.cancelling():
                continue
            try:
                await self.prolong(self._ttl)
            except CacheUnavailable:
                lost()
            else:
                if not self.intact:
                    lost()

    async def prolong(self, seconds: float) -> None:
        """Let the promise count for so long from now on. Raises `CacheUnavailable`."""
        self._over = max(self._over, self._clock.monotonic() + seconds)
        until = self._clock.wall() + seconds
        _, self.intact = await self.remote.prolong(self.key, self.head, self.found, until)

    async def withdraw(self) -> bool:
        """Take the promise back, and return whether it is sure to be gone.

        One that the store has not confirmed may be still on its way.
        """
        made = await self._making if self._making is not None else False
        if made is False or self.refused:
            return True
        try:
            found, self.intact = await self.remote.withdraw(self.key, self.head, self.found)
        except CacheUnavailable:
            return False
        return found or made is True


class Withdrawals:
    """Promises that are taken back while nobody waits for it.

    Args:
        tools: of the cache.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, right: Right) -> None:
        """Take a promise back, again and again until it is gone or over."""
        name = f"withdraw:{self._tools.options.name}:{right.key}"
        task = self._tools.supervisor.spawn(self._withdraw(right), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _withdraw(self, right: Right) -> None:
        pause = _FIRST_PAUSE
        while not (await right.withdraw() or right.over):
            await self._tools.clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def close(self, timeout: float) -> None:
        """Wait for those under way, at most `timeout` seconds; then leave the rest to its end."""
        if tasks := tuple(self._tasks):
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
