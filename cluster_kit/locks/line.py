"""Who is next for a lock within this instance."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.errors import LockUnavailable
    from cluster_kit.locks.asking import Asking


class Line:
    """Gives so many turns at a time, in the order of asking.

    A turn is kept while its owner waits for the lock and while he holds it, so that the server
    hears of so many contenders of each instance and no more.

    Attributes:
        error: what the server answered last, to any of them, instead of yes or no.
        answered: whether it has answered any of them.
        left: what one asked for who went before he heard; the next one takes it over.

    Args:
        turns: at a time.
    """

    def __init__(self, turns: int = 1) -> None:
        self.error: LockUnavailable | None = None
        self.answered = False
        self.left: Asking | None = None
        self._turns = turns
        self._taken = 0
        # By themselves: whoever is cancelled leaves at once, wherever he stands.
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Whether nobody has a turn or waits for one."""
        return not self._taken

    @property
    def full(self) -> bool:
        """Whether whoever comes now has to wait."""
        return self._taken == self._turns

    @property
    def last(self) -> bool:
        """Whether nobody waits for a turn behind those who have one."""
        return not self._waiting

    def heard(self, error: LockUnavailable | None) -> None:
        """Note what the server answered."""
        self.error, self.answered = error, True

    async def enter(self) -> None:
        """Wait for a turn and take it."""
        if not self.full:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._waiting.pop(turn, None)
            raise

    def leave(self) -> None:
        """Pass a turn on."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1


class Lines:
    """The lines of all locks that somebody here wants.

    Args:
        turns: of each at a time.
    """

    def __init__(self, turns: int = 1) -> None:
        self._turns = turns
        self._lines: dict[str, Line] = {}

    def find(self, name: str) -> Line:
        """Return the line for a lock."""
        return self._lines.setdefault(name, Line(self._turns))

    def leave(self, name: str, line: Line) -> None:
        """Pass a turn on; a line nobody stands in is forgotten."""
        line.leave()
        self.tidy(name, line)

    def tidy(self, name: str, line: Line) -> None:
        """Forget a line nobody stands in, and undo what was left to the next."""
        if not line.idle:
            return
        if self._lines.get(name) is line:
            del self._lines[name]
        left, line.left = line.left, None
        if left is not None:
            left.end()
