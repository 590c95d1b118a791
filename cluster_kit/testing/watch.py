"""What handlers that keep what they were given have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Watch:
    """Counts the calls of a handler and waits for what it sees.

    Attributes:
        active: calls going on now.
        peak: most calls that went on at once.
    """

    def __init__(self) -> None:
        self.active: int = 0
        self.peak: int = 0
        self._changed = asyncio.Event()

    @contextmanager
    def _call(self) -> Generator[None]:
        """One call, from what was noted of it to its end."""
        self.active += 1
        self.peak = max(self.peak, self.active)
        self._changed.set()
        try:
            yield
        finally:
            self.active -= 1
            self._changed.set()

    def _seen(self) -> str:
        """Return what a wait in vain has seen."""
        raise NotImplementedError

    async def _until(self, reached: Callable[[], bool], what: str, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not reached():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            text = f"waited {timeout:g} s for {what}; saw {self._seen()}"
            raise AssertionError(text) from None
