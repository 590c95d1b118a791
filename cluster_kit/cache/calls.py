"""The calls under way that change something in a cache."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Calls:
    """Counts them, each within a ``with`` of this, so that a stop can wait for their end.

    Args:
        ended: called at the end of each.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._count = 0
        self._none = asyncio.Event()

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *error: object) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()
        self._ended()

    async def over(self) -> None:
        """Wait until none is under way."""
        while self._count:
            self._none.clear()
            await self._none.wait()
