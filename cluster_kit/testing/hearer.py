"""A handler of broadcasts that keeps what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.testing.waiting import PATIENCE
from cluster_kit.testing.watch import Watch

if TYPE_CHECKING:
    from cluster_kit.broadcast import Event

Reaction = Callable[[object, "Event"], Awaitable[object]]
"""What a hearer does with a message, after it has noted it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One call of the hearer's handler."""

    message: object
    event: Event


class Hearer(Watch):
    """Subscribe its `handle`, with its `on_gap` where gaps matter.

    Attributes:
        heard: every call, in the order they began.
        gaps: the channels of every gap it was told of, in order.
        ended: calls that are over, well or not.

    Args:
        reaction: awaited in each call; by default a call succeeds at once.
    """

    def __init__(self, reaction: Reaction | None = None) -> None:
        super().__init__()
        self.heard: list[Heard] = []
        self.gaps: list[list[str]] = []
        self.ended: int = 0
        self._reaction = reaction

    async def handle(self, message: object, event: Event) -> None:
        """Note the message, then react."""
        self.heard.append(Heard(message, event))
        with self._call():
            try:
                if self._reaction is not None:
                    await self._reaction(message, event)
            finally:
                self.ended += 1

    async def on_gap(self, channels: list[str]) -> None:
        """Note a gap."""
        self.gaps.append(channels)
        self._changed.set()

    @property
    def messages(self) -> list[object]:
        """All messages, in the order their calls began."""
        return [heard.message for heard in self.heard]

    async def hears(self, calls: int = 1, *, timeout: float = PATIENCE) -> list[object]:
        """Wait until at least so many calls have ended, and return all messages.

        Raises:
            AssertionError: they did not within `timeout` seconds.
        """
        await self._until(lambda: self.ended >= calls, f"{calls} messages", timeout)
        return self.messages

    async def begins(self, calls: int = 1, *, timeout: float = PATIENCE) -> None:
        """Wait until at least so many calls have begun. Raises as `hears`."""
        await self._until(lambda: len(self.heard) >= calls, f"{calls} calls", timeout)

    async def is_told(self, gaps: int = 1, *, timeout: float = PATIENCE) -> list[list[str]]:
        """Wait until it was told of at least so many gaps, and return all. Raises as `hears`."""
        await self._until(lambda: len(self.gaps) >= gaps, f"{gaps} gaps", timeout)
        return self.gaps

    def _seen(self) -> str:
        return f"messages {self.messages!r:.400}, gaps {self.gaps!r:.200}"


def holds(gate: asyncio.Event) -> Reaction:
    """Return a reaction that holds every call until `gate` is set."""

    async def reaction(_message: object, _event: Event) -> None:
        await gate.wait()

    return reaction
