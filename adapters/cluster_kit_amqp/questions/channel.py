"""A channel for questions, on aiormq."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from aiormq.exceptions import ChannelClosed

from cluster_kit_amqp.link import Incoming, Message, QueueCounts
from cluster_kit_amqp.questions.calls import Calls, Outcome

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, DeliveredMessage


_CLOSE_TIMEOUT = 1.0  # seconds
_PURGE_TIMEOUT = 60.0  # seconds; a long queue takes its time


class AiormqChannel:
    """Implements `cluster_kit_amqp.control.seam.ControlChannel`."""

    def __init__(self, channel: AbstractChannel, calls: Calls) -> None:
        self._channel, self._calls = channel, calls

    # --- queues ------------------------------------------------------------------------------

    async def declare_exclusive(self, name: str) -> None:
        """Make a queue of this link's own."""
        arguments = {"x-queue-type": "classic"}
        await self._calls.run(
            self._channel.queue_declare(
                name, exclusive=True, auto_delete=True, arguments=dict(arguments)
            )
        )

    async def check_queue(self, name: str) -> QueueCounts:
        """Count, or raise `ChannelDown`."""
        told = await self._calls.run(self._channel.queue_declare(name, passive=True))
        return QueueCounts(ready=told.message_count or 0, consumers=told.consumer_count or 0)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all in it."""
        await self._calls.run(self._channel.queue_delete(name))

    async def purge(self, queue: str) -> int:
        """Drop the ready messages."""
        call = self._channel.queue_purge(queue)
        told = await self._calls.run(call, timeout=_PURGE_TIMEOUT)
        return told.message_count or 0

    # --- messages ----------------------------------------------------------------------------

    async def get(self, queue: str) -> Incoming | None:
        """Take one message."""
        return _incoming(await self._calls.run(self._channel.basic_get(queue)))

    async def ack(self, tag: int) -> None:
        """Settle a delivery."""
        await self._calls.run(self._channel.basic_ack(tag))

    async def requeue(self, tag: int, *, multiple: bool = False) -> None:
        """Return one delivery, or all up to it."""
        await self._calls.run(self._channel.basic_nack(tag, multiple=multiple, requeue=True))

    async def close(self) -> None:
        """Close the channel, behind whatever still runs on it; what is unsettled returns."""
        call = self._channel.close(ChannelClosed(0, "closed by this side"))
        await asyncio.wait({self._calls.start(call, Outcome())}, timeout=_CLOSE_TIMEOUT)


def _incoming(message: DeliveredMessage) -> Incoming | None:
    tag = message.delivery_tag
    if tag is None:  # the answer to a get on an empty queue
        return None
    properties = message.header.properties
    timestamp = properties.timestamp
    return Incoming(
        message=Message(
            body=message.body,
            headers=dict(properties.headers or {}),
            message_id=properties.message_id,
            content_type=properties.content_type,
            app_id=properties.app_id,
            timestamp=timestamp.timestamp() if isinstance(timestamp, datetime) else None,
        ),
        tag=tag,
        redelivered=bool(message.redelivered),
    )
