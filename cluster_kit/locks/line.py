"""Who is next for a lock within this instance."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class Line:
    """Gives one turn at a time, in the order of asking.

    The turn is kept while its owner waits for the lock and while he holds it, so that the server
    hears of one contender for each instance.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def idle(self) -> bool:
        """Whether nobody has the turn or waits for it."""
        return not self._taken

    async def enter(self) -> None:
        """Wait for the turn and take it."""
        if not self._taken:
            self._taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Pass the turn on."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False


class Lines:
    """The lines of all locks that somebody here wants."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}

    def find(self, name: str) -> Line:
        """Return the line for a lock."""
        return self._lines.setdefault(name, Line())

    def leave(self, name: str, line: Line) -> None:
        """Pass the turn on; a line nobody stands in is forgotten."""
        line.leave()
        self.tidy(name, line)

    def tidy(self, name: str, line: Line) -> None:
        """Forget a line nobody stands in."""
        if line.idle and self._lines.get(name) is line:
            del self._lines[name]
