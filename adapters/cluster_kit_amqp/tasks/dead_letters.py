"""Reading dead letters: taken one by one, held, and given back in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectionLost
from cluster_kit_amqp.control.seam import ControlChannel, ControlLink, counts
from cluster_kit_amqp.link import LinkError
from cluster_kit_amqp.tasks.turns import Turns
from cluster_kit_amqp.tasks.wire import to_envelope

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import DeadEntry


_RETURN_TIMEOUT = 2.0  # seconds; somebody else may take letters at the same time
_RETURN_POLL = 0.01  # seconds
_AT_ONCE = 32  # letters that a channel of RabbitMQ returns to a quorum queue in their order
_LONGEST_TURN = 200  # letters taken for the sake of order alone; beyond, the order turns


class AmqpDeadEntry:
    """A dead letter held by this reader. Implements `cluster_kit.ports.DeadEntry`."""

    def __init__(
        self, envelope: Envelope, tag: int, channel: ControlChannel, held: set[int]
    ) -> None:
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
async def read_dead(
    link: ControlLink, turns: Turns, queue: QueueName
) -> AsyncGenerator[AsyncIterator[DeadEntry], None]:
    """Go through the dead letters there are now, except what another reader holds meanwhile.

    Raises:
        LinkError: on opening; the iterator raises `ConnectionLost`.
    """
    if await counts(link, queue.dead) is None:
        yield _nothing()
        return
    held: set[int] = set()
    async with turns.of(link, queue.dead), link.channel() as channel:
        count = (await channel.check_queue(queue.dead)).ready
        try:
            yield _walk(channel, queue, count, held)
        finally:
            if held:
                with suppress(LinkError, TimeoutError):
                    await _put_back(channel, queue.dead, held)


async def _put_back(channel: ControlChannel, name: str, held: set[int]) -> None:
    """Give the held letters back in their order, and wait until they are there again.

    A quorum queue puts what is returned behind what was returned before and ahead of the rest. So
    the letters returned by an earlier, longer look are taken too, and all returned in one go. A
    broker that is told of more than it has under way at a time forgets their order: so it is told
    of some, and of the next once it has them. A reader that comes before it has all of them would
    find the queue empty, or find later letters first.
    """
    for _ in range(_LONGEST_TURN):
        incoming = await channel.get(name)
        if incoming is None:
            break
        held.add(incoming.tag)
        if not incoming.redelivered:
            break
    ready = (await channel.check_queue(name)).ready
    tags = sorted(held)
    for batch in (tags[at : at + _AT_ONCE] for at in range(0, len(tags), _AT_ONCE)):
        await channel.requeue(batch[-1], multiple=True)
        ready += len(batch)
        # The broker tells nobody when it has them: it has to be asked.
        async with asyncio.timeout(_RETURN_TIMEOUT):
            while (await channel.check_queue(name)).ready < ready:  # noqa: ASYNC110
                await asyncio.sleep(_RETURN_POLL)


async def _walk(
    channel: ControlChannel, queue: QueueName, count: int, held: set[int]
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
