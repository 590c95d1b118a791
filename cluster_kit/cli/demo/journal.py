"""What the instances report: the evidence of the demo."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal, Self

Kind = Literal["started", "run", "done", "failed", "cancelled", "fixed", "stopped"]

PATIENCE = 15.0
"""Seconds anything may take before a promise counts as broken."""


class BrokenPromise(Exception):  # noqa: N818 - what it is, and nothing the library raises
    """Something else happened than promised; the text says what."""


def require(kept: bool, otherwise: str) -> None:
    """Raise `BrokenPromise` with `otherwise` unless `kept`."""
    if not kept:
        raise BrokenPromise(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one instance saw. `at` is in seconds since 1970, all on one machine.

    Attributes:
        detail: of ``failed`` the error, of ``cancelled`` the signal's reason, of ``stopped`` the
            ids of unfinished tasks.
    """

    kind: Kind
    instance: str
    at: float
    channel: str = ""
    id: str = ""
    attempt: int = 0
    redelivered: bool = False
    detail: str = ""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Self:
        """Return what `line` has made of an event."""
        return cls(**json.loads(line))


class Journal:
    """All events of all instances, in the order they came in."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        """Note an event."""
        self.events.append(event)
        self._news.set()

    def of(self, kind: Kind, ids: Iterable[str]) -> list[Event]:
        """Return the events of one kind that concern these tasks."""
        wanted = set(ids)
        return [event for event in self.events if event.kind == kind and event.id in wanted]

    def instances(self, kind: Kind) -> list[str]:
        """Return the instances that reported an event of this kind."""
        return [event.instance for event in self.events if event.kind == kind]

    async def until(self, reached: Callable[[], bool], otherwise: str) -> None:
        """Wait until `reached`.

        Raises:
            BrokenPromise: with `otherwise`, when that takes longer than `PATIENCE`.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BrokenPromise(f"{otherwise} within {PATIENCE:g} s") from None

    async def until_done(self, ids: list[str]) -> list[Event]:
        """Wait until every task is done and return these events. Raises as `until`."""
        await self.until(
            lambda: {event.id for event in self.of("done", ids)} == set(ids),
            f"not all of {len(ids)} tasks were done",
        )
        return self.of("done", ids)
