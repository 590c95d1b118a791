"""Reading dead letters: taken one by one, held, and given back in their order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectionLost
from cluster_kit_amqp.declare import exists
from cluster_kit_amqp.link import Channel, Link, LinkError
from cluster_kit_amqp.topology import Queue
from cluster_kit_amqp.wire import to_envelope

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import DeadEntry


class AmqpDeadEntry:
    """A dead letter held by this reader. Implements `cluster_kit.ports.DeadEntry`."""

    def __init__(self, envelope: Envelope, tag: int, channel: Channel, held: set[int]) -> None:
        self.envelope: Envelope = envelope
        self._tag, self._channel, self._held = tag, channel, held

    async def remove(self) -> None:
        """Take it out of the dead letters for good. A second call has no effect.

        Raises:
            ConnectionLost: the entry is not held any more; it is still a dead letter.
        """
        if self._tag not in self._held:
            return
        try:
            await self._channel.ack(self._tag)
        except LinkError as exc:
            raise ConnectionLost(f"the dead letter was not removed: {exc.reason}") from exc
        self._held.discard(self._tag)


@asynccontextmanager
async def read_dead(link: Link, queue: QueueName) -> AsyncGenerator[AsyncIterator[DeadEntry], None]:
    """Go through the dead letters there are now, except what another reader holds meanwhile.

    Raises:
        LinkError: on opening; the iterator raises `ConnectionLost`.
    """
    if not await exists(link, Queue(queue.dead, {})):
        yield _nothing()
        return
    held: set[int] = set()
    async with link.channel() as channel:
        count = (await channel.check_queue(queue.dead)).ready
        try:
            yield _walk(channel, queue, count, held)
        finally:
            with suppress(LinkError):
                if held:
                    await channel.requeue(max(held), multiple=True)


async def _walk(
    channel: Channel, queue: QueueName, count: int, held: set[int]
) -> AsyncIterator[DeadEntry]:
    for _ in range(count):
        try:
            incoming = await channel.get(queue.dead)
        except LinkError as exc:
            raise ConnectionLost(f"reading dead letters of {queue}: {exc.reason}") from exc
        if incoming is None:
            return
        held.add(incoming.tag)
        envelope = to_envelope(incoming.message, queue, dead=True)
        yield AmqpDeadEntry(envelope, incoming.tag, channel, held)


async def _nothing() -> AsyncIterator[DeadEntry]:
    return
    yield  # what makes this an iterator
