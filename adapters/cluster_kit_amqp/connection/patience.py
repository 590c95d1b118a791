"""How long the broker is waited for, which is less once nothing but the end is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, `seconds` at most; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Patience:
    """Bounds what one task asks of the broker, one thing after the other.

    Args:
        usual: seconds for each.
        at_end: seconds for each from `end_soon` on.
    """

    def __init__(self, usual: float, at_end: float) -> None:
        self._seconds, self._at_end = usual, at_end
        self._began = 0.0
        self._limit: asyncio.Timeout | None = None

    @asynccontextmanager
    async def limited(self) -> AsyncGenerator[None, None]:
        """Raise `TimeoutError` when the context takes too long."""
        self._began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._seconds) as self._limit:
                yield
        finally:
            self._limit = None

    def end_soon(self) -> None:
        """Wait less from now on; what is waited for has that much from its beginning."""
        self._seconds = self._at_end
        if self._limit is not None:
            self._limit.reschedule(self._began + self._at_end)
