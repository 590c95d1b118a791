"""A clock that a test turns by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools

_TURNS = 10
"""Turns of the event loop that a woken sleeper gets before the next one is woken."""


class FakeClock:
    """A `cluster_kit.clock.Clock` on which time passes only in `advance`.

    Args:
        wall: first reading of the wall clock, seconds since 1970.
    """

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._now = 0.0
        self._wall = wall
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._wall

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Sleep until `advance` has passed `seconds`. 0 or less only lets others run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: wake sleepers in the order of their time, each before the next.

        A woken sleeper runs until it waits again; if it sleeps again within this span, it is
        woken again.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds!r}")
        end = self._now + seconds
        await _let_others_run()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._pass(due - self._now)
            if not future.done():
                future.set_result(None)
                await _let_others_run()
        self._pass(end - self._now)

    def shift_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would; nobody is woken."""
        self._wall += seconds

    def _pass(self, seconds: float) -> None:
        self._now += seconds
        self._wall += seconds


async def _let_others_run() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
