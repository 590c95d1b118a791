"""One channel that consumes one queue, from its opening to its loss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectionLost
from cluster_kit_amqp.link import Channel, Incoming, Link, LinkError
from cluster_kit_amqp.tasks.wire import redeliveries, to_envelope

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import Received

_NACK_IS_FREE = (4, 3)
"""First release in which returning a delivery is not counted."""

_CANCEL_TIMEOUT = 2.0  # seconds


@dataclass(eq=False, slots=True)
class AmqpReceived:
    """A delivery of this intake. Implements `cluster_kit.ports.Received`."""

    envelope: Envelope
    copy_id: str
    redeliveries: int
    redelivered: bool
    give_back_counts: bool
    tag: int
    intake: Intake

    @property
    def lost(self) -> bool:
        """Whether it is known that it cannot be settled any more."""
        return self.intake.lost is not None

    async def ack(self) -> None:
        """Settle: the task leaves the queue."""
        self.intake.settle(self.tag, requeue=False)

    async def give_back(self) -> None:
        """Settle: the task returns to the queue."""
        self.intake.settle(self.tag, requeue=True)


class Intake:
    """A consuming channel and its unsettled deliveries.

    Pausing ends the consumers and keeps the channel, or the unsettled deliveries would be lost.
    The broker counts prefetch per consumer, so what an ended one left unsettled is taken off the
    share of the next; as that is settled, further consumers fill the share up. Together they
    never hold more than that.

    Attributes:
        lost: why the channel is of no use any more; None while it is.
    """

    def __init__(
        self,
        channel: Channel,
        queue: QueueName,
        *,
        on_delivery: Callable[[Received], None],
        on_change: Callable[[], None],
        give_back_counts: bool,
    ) -> None:
        self._channel, self._queue = channel, queue
        self._on_delivery, self._on_change = on_delivery, on_change
        self._give_back_counts = give_back_counts
        self._shares: dict[str, int] = {}
        self._unsettled: dict[int, str] = {}
        self._ending = False
        self.lost: str | None = None
        channel.on_closed(self.lose)

    @classmethod
    async def open(
        cls,
        link: Link,
        queue: QueueName,
        *,
        on_delivery: Callable[[Received], None],
        on_change: Callable[[], None],
    ) -> Intake:
        """Open a channel on `link`; `on_change` is called when there is something to do."""
        return cls(
            await link.open_channel(),
            queue,
            on_delivery=on_delivery,
            on_change=on_change,
            give_back_counts=link.server.release < _NACK_IS_FREE,
        )

    # --- taking ------------------------------------------------------------------------------

    @property
    def taking(self) -> bool:
        """Whether deliveries may come."""
        return bool(self._shares)

    async def take(self, prefetch: int) -> None:
        """Consume with what is free of a share of `prefetch`. Raises `LinkError`.

        Further consumers are few: each waits until a good part of the share is free.
        """
        left_over = self._left_over()
        free = prefetch - sum(self._shares.values()) - left_over
        worth = max(1, prefetch // 4) if self._shares and left_over else 1
        if free < worth:
            return
        tag = await self._channel.consume(
            self._queue.full,
            prefetch=free,
            on_message=self._received,
            on_cancelled=self._cancelled,
        )
        self._shares[tag] = free

    def _left_over(self) -> int:
        """Return how many deliveries of ended consumers are unsettled."""
        return sum(1 for tag in self._unsettled.values() if tag not in self._shares)

    async def stop_taking(self) -> None:
        """End the consumers; their deliveries stay ours. Raises `LinkError`."""
        for tag in tuple(self._shares):
            await self._channel.cancel(tag)
            self._shares.pop(tag, None)

    def _received(self, consumer_tag: str, incoming: Incoming) -> None:
        if self.lost is not None:
            return
        self._unsettled[incoming.tag] = consumer_tag
        if self._ending:
            return
        message, redelivered = incoming.message, incoming.redelivered
        self._on_delivery(
            AmqpReceived(
                to_envelope(message, self._queue),
                message.message_id or "",  # a foreign publisher may have given none
                redeliveries(incoming) if redelivered else 0,
                redelivered,
                self._give_back_counts,
                incoming.tag,
                self,
            )
        )

    def _cancelled(self, consumer_tag: str) -> None:
        """The broker ended the consumer. Its deliveries may be somebody else's by now."""
        self._shares.pop(consumer_tag, None)
        self.lose("the broker cancelled the consumer: its queue was deleted or moved")

    # --- settling ----------------------------------------------------------------------------

    def settle(self, tag: int, *, requeue: bool) -> None:
        """Acknowledge or return a delivery.

        Raises:
            ConnectionLost: it is not ours any more.
        """
        consumer_tag = self._unsettled.pop(tag, None)
        if self.lost is not None or consumer_tag is None:
            raise ConnectionLost(f"the delivery was lost: {self.lost or 'it is settled already'}")
        try:
            if requeue:
                self._channel.requeue(tag)
            else:
                self._channel.ack(tag)
        except LinkError as exc:
            raise ConnectionLost(f"the delivery was lost: {exc.reason}") from exc
        if consumer_tag not in self._shares:
            self._on_change()

    # --- ending ------------------------------------------------------------------------------

    def lose(self, reason: str, *, tell: bool = True) -> None:
        """From now on nothing can be settled. The first reason stays."""
        if self.lost is None:
            self.lost = reason
            if tell:
                self._on_change()

    async def close(self) -> None:
        """Return what is unsettled and close the channel."""
        self._ending = True
        usable = self.lost is None and await self._quietly(self.stop_taking())
        self.lose("the consumer is closed", tell=False)
        if usable and self._unsettled:
            # One answer for all keeps their order, and where the broker can tell this from a
            # crash it is not counted.
            with suppress(LinkError):
                self._channel.requeue(max(self._unsettled), multiple=True)
        await self._channel.close()

    async def _quietly(self, work: Awaitable[None]) -> bool:
        """Do `work` within the time there is for it; return whether it was done."""
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT):
                await work
        except (LinkError, TimeoutError):
            return False
        return True
