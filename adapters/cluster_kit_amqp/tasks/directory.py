"""The list of an application's channels, kept on the broker.

AMQP cannot list queues. So whoever makes a channel's queue first puts its name, as a message,
into a queue that is only ever browsed. An entry without a queue is harmless: readers look.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from cluster_kit.errors import InvalidNameError, TopologyError
from cluster_kit.names import QueueName, check_name, new_id
from cluster_kit_amqp.control.declare import declare
from cluster_kit_amqp.control.seam import ACCESS_REFUSED, ControlLink, MakingLink, counts
from cluster_kit_amqp.link import ChannelDown, Incoming, Message, Nacked
from cluster_kit_amqp.tasks.turns import Turns
from cluster_kit_amqp.topology import DIRECTORY, directory_queue, directory_steps

if TYPE_CHECKING:
    from cluster_kit.clock import Clock


_PAUSES = 0.1, 0.2, 0.4, 0.8, 1.6
"""Seconds before the list is tried again; one that was made just now may have no leader yet."""


async def announce(link: MakingLink, queue: QueueName, clock: Clock) -> None:
    """Put a channel on the list; confirmed when this returns.

    A shared queue is no application's and is not listed. A user that may not write the list is
    a user that makes no queues either; the attempt to make one will tell.

    Raises:
        TopologyError: the list takes nothing.
        LinkError: the link or a channel failed.
    """
    if queue.app is None:
        return
    try:
        await declare(link, directory_steps(queue.app))
        for pause in _PAUSES:
            try:
                await _put(link, queue.app, queue.channel)
            except Nacked:
                await clock.sleep(pause)
            else:
                return
        await _put(link, queue.app, queue.channel)
    except Nacked as exc:
        detail = "takes no entry, and lists the channels: no policy may limit its length"
        raise TopologyError(f"queue {directory_queue(queue.app)!r}", detail) from exc
    except ChannelDown as exc:
        if exc.code != ACCESS_REFUSED:
            raise


async def _put(link: MakingLink, app: str, name: str) -> None:
    # On a channel of its own: RabbitMQ 3 takes nothing on one that met the queue without a leader.
    async with link.channel(confirms=True) as channel:
        await channel.publish(DIRECTORY, app, Message(body=name.encode(), message_id=new_id()))


async def read_channels(
    link: ControlLink, turns: Turns, app: str, used: AbstractSet[QueueName]
) -> list[QueueName]:
    """Return the channels on the list, and those of `used`, whose queue is there, sorted.

    Entries that one reader holds are hidden from others, so readers take turns.

    Raises:
        LinkError: the link or a channel failed.
    """
    name = directory_queue(app)
    listed = set(used)
    if await counts(link, name) is not None:
        async with turns.of(link, name):
            listed |= await _browse(link, app, name)
    known = sorted(listed, key=str)
    return [queue for queue in known if await counts(link, queue.full) is not None]


async def _browse(link: ControlLink, app: str, name: str) -> set[QueueName]:
    """Read the whole list and put it back, each channel once."""
    listed: set[QueueName] = set()
    held: list[int] = []
    async with link.channel() as channel:
        while (entry := await channel.get(name)) is not None:
            queue = _entry(app, entry)
            if queue is None or queue in listed:
                await channel.ack(entry.tag)
            else:
                listed.add(queue)
                held.append(entry.tag)
        if held:
            await channel.requeue(held[-1], multiple=True)
    return listed


def _entry(app: str, entry: Incoming) -> QueueName | None:
    try:
        return QueueName(app, check_name("channel", entry.message.body.decode()))
    except (UnicodeDecodeError, InvalidNameError):
        return None
