"""Wakes a relay: something has been stored."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakSet

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine


class Bell:
    """Rung from any thread, heard on the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or will. Never raises."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, timeout: float) -> bool:
        """Wait at most so many seconds; return whether it was rung."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung


class Commits:
    """Tells when connections commit that were marked.

    SQLAlchemy tells just before, so whoever is told must look more than once.
    """

    def __init__(self, committing: Callable[[], None]) -> None:
        self._committing = committing
        self._engines: WeakSet[Engine] = WeakSet()

    def expect(self, connection: Connection) -> None:
        """Tell when `connection` commits next."""
        if connection.engine not in self._engines:
            self._engines.add(connection.engine)
            event.listen(connection.engine, "commit", self._commit)
            event.listen(connection.engine, "commit_twophase", self._commit)
        connection.info[self] = True

    def _commit(self, connection: Connection, *_: object) -> None:
        # What was rolled back leaves its mark, and wakes the relay once for nothing.
        if connection.info.pop(self, False):
            self._committing()
