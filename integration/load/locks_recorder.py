"""What the lock of a load run protects: one number, kept by whoever is not under test.

Workers speak to it in lines over TCP. A section is ``enter slot fence``, answered with the number,
and ``write slot fence number``. It refuses a fence older than one it has seen, and writes
down everything, so that it can say afterwards whether two were ever at work together.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass(slots=True)
class Book:
    """What was seen.

    Attributes:
        number: that is read, raised by one, and written.
        writes: that were accepted, by slot.
        fences: of these writes, in their order.
        refused: writes with an old fence: a holder acted after another one had begun.
        overlaps: accepted writes of somebody who was not alone since he had entered.
        entered: the highest fence that began.
        lost: how often a worker heard that its lock was lost.
        inside: the slot that is at work.
    """

    number: int = 0
    writes: Counter[int] = field(default_factory=Counter[int])
    fences: list[int] = field(default_factory=list[int])
    refused: int = 0
    overlaps: int = 0
    entered: int = 0
    lost: int = 0
    inside: int | None = None
    _read: dict[int, int] = field(default_factory=dict[int, int])

    def enter(self, slot: int, fence: int) -> str:
        """Let somebody begin, and tell him the number."""
        if fence <= self.entered:
            self.refused += 1
            return "refused"
        self.entered, self.inside = fence, slot
        self._read = {fence: self.number}
        return str(self.number)

    def write(self, slot: int, fence: int, number: int) -> str:
        """Take a number, unless somebody else has begun meanwhile."""
        if fence < self.entered:
            self.refused += 1
            return "refused"
        if self._read.get(fence) != self.number or number != self.number + 1:
            self.overlaps += 1
        self.number, self.inside = number, None
        self.writes[slot] += 1
        self.fences.append(fence)
        return "written"

    @property
    def total(self) -> int:
        """How many writes were accepted."""
        return sum(self.writes.values())

    @property
    def exact(self) -> bool:
        """Whether no write was lost and the fences grew from each to the next."""
        growing = all(a < b for a, b in zip(self.fences, self.fences[1:], strict=False))
        return self.number == self.total and growing and not self.overlaps


class Recorder:
    """Serves a book. ``async with Recorder(sections) as recorder:``.

    Args:
        sections: that each slot has to do; then its worker is told to end.
        enough: whether everything else that was to happen has happened.
    """

    def __init__(self, sections: int, enough: Callable[[], bool] = lambda: True) -> None:
        self.book = Book()
        self._sections = sections
        self._enough = enough
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._links:
            writer.close()

    def answer(self, line: str) -> str:
        """Answer one line of a worker."""
        match line.split():
            case ["more", slot]:
                done = self.book.writes[int(slot)] >= self._sections and self._enough()
                return "no" if done else "yes"
            case ["enter", slot, fence]:
                return self.book.enter(int(slot), int(fence))
            case ["write", slot, fence, number]:
                return self.book.write(int(slot), int(fence), int(number))
            case ["lost", _]:
                self.book.lost += 1
                return "noted"
            case _:
                raise ValueError(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(writer)
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    return
                writer.write(f"{self.answer(line.decode())}\n".encode())
                await writer.drain()
        except OSError:
            pass  # the worker was killed
        finally:
            self._links.discard(writer)
            writer.close()
