"""Waiting for a server nearby without going to sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

_SOON = 0.0002  # seconds in which a server nearby answers
_FORGETS = 8  # so many answers lately say how long they take


class Awake:
    """Lets the event loop go round instead of sleeping, until an answer is there that is due soon.

    A loop that sleeps is woken later than such an answer came, and to be put to sleep and woken
    costs as much processor time as to go round until then. All other tasks run meanwhile. Where
    answers take longer than `_SOON` lately, as they do from afar and where there is much to do,
    the loop may sleep.
    """

    def __init__(self) -> None:
        self._takes = 0.0  # seconds, of an answer lately
        self._awaited = 0  # answers
        self._until = 0.0
        self._turns = False  # whether it goes round

    @contextmanager
    def for_an_answer(self) -> Generator[None]:
        """While it is awaited. One that does not come tells nothing of how long others take."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._awaited += 1
        if self._takes < _SOON:
            self._until = began + _SOON
            if not self._turns:
                self._turns = True
                loop.call_soon(self._turn, loop)
        try:
            yield
            self._takes += (loop.time() - began - self._takes) / _FORGETS
        finally:
            self._awaited -= 1

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns = self._awaited > 0 and loop.time() < self._until
        if self._turns:
            loop.call_soon(self._turn, loop)
