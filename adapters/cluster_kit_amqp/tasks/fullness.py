"""Tells a queue that is full from one that has no leader for now: both take nothing."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from cluster_kit_amqp.link import LinkError

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit_amqp.connection.supervised import Connection

_TRUE_FOR = 1.0  # seconds an answer serves all publishes that wait for it


class Fullness:
    """Asks about queues that took nothing, one question at a time however many publishes wait.

    Args:
        connection: is asked on.
        clock: of the port.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._asking = asyncio.Lock()
        self._known: dict[str, tuple[float, bool]] = {}

    async def is_full(self, queue: str) -> bool:
        """Whether a queue that took nothing holds messages; without a leader it tells of none."""
        async with self._asking:
            at, full = self._known.get(queue, (-math.inf, False))
            if self._clock.monotonic() - at > _TRUE_FOR:
                full = await self._ask(queue)
                self._known = {queue: (self._clock.monotonic(), full)}
            return full

    async def _ask(self, queue: str) -> bool:
        link = self._connection.link
        if link is None:
            return False
        try:
            async with link.channel() as channel:
                return (await channel.check_queue(queue)).ready > 0
        except LinkError:  # it is not there, or cannot answer
            return False
