"""Readers of a queue take turns: what one of them holds is hidden from the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from cluster_kit_amqp.control.seam import ACCESS_REFUSED, LOCKED, PRECONDITION_FAILED, ControlLink
from cluster_kit_amqp.link import ChannelDown, LinkError
from cluster_kit_amqp.topology import reader_queue

_INTERVAL = 0.05  # seconds
_TRIES = 60


class Turns:
    """Turns of one adapter's readers, among themselves and with those of other connections."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    @asynccontextmanager
    async def of(self, link: ControlLink, queue: str) -> AsyncGenerator[None, None]:
        """Wait until nobody else reads `queue`; go on without a turn when none comes.

        The turn is a queue that only its connection may use and that goes with it.

        Raises:
            LinkError: the link or a channel failed.
        """
        name = reader_queue(queue)
        if not await self._take(link, name):
            yield
            return
        try:
            yield
        finally:
            self._taken.discard(name)
            with suppress(LinkError):
                async with link.channel() as channel:
                    await channel.delete_queue(name)

    async def _take(self, link: ControlLink, name: str) -> bool:
        for _ in range(_TRIES):
            if name not in self._taken and await self._try(link, name):
                return True
            await asyncio.sleep(_INTERVAL)
        return False

    async def _try(self, link: ControlLink, name: str) -> bool:
        self._taken.add(name)
        try:
            async with link.channel() as channel:
                await channel.declare_exclusive(name)
        except ChannelDown as exc:
            # It may make no queues, or the virtual host has no room: a turn among our own readers.
            if exc.code in {ACCESS_REFUSED, PRECONDITION_FAILED}:
                return True
            self._taken.discard(name)
            if exc.code != LOCKED:
                raise
            return False
        except BaseException:
            self._taken.discard(name)
            raise
        return True
