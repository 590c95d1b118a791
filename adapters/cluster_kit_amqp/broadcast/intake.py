"""One channel that consumes broadcasts, from its opening to its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from cluster_kit_amqp.link import Channel, Incoming, LinkError

Deliver = Callable[[Incoming], None]


class Intake:
    """Hands deliveries over and acknowledges them; holds them back until `release`.

    They are acknowledged as soon as they are handed over: what was built from them goes with the
    process anyway. Acknowledgements are there to be given only what there is room for.

    Args:
        channel: of its own, open.
        deliver: takes a delivery.
        on_loss: called once with the reason when the channel is of no use any more.

    Attributes:
        lost: why it is of no use any more; None while it is.
    """

    def __init__(self, channel: Channel, deliver: Deliver, on_loss: Callable[[str], None]) -> None:
        self._channel, self._deliver, self._on_loss = channel, deliver, on_loss
        self._held: list[Incoming] | None = []
        self.lost: str | None = None
        channel.on_closed(self.lose)

    async def consume(self, queue: str, prefetch: int, arguments: Mapping[str, object]) -> None:
        """Begin to take. Raises `LinkError`."""
        await self._channel.consume(
            queue,
            prefetch=prefetch,
            on_message=self._received,
            on_cancelled=self._cancelled,
            arguments=arguments,
            routed=True,
        )

    def release(self) -> None:
        """Hand over what was held back, and all that comes from now on."""
        held, self._held = self._held, None
        for incoming in held or ():
            self._take(incoming)

    def _received(self, _: str, incoming: Incoming) -> None:
        if self._held is not None:
            self._held.append(incoming)
        else:
            self._take(incoming)

    def _take(self, incoming: Incoming) -> None:
        if self.lost is not None:
            return
        self._deliver(incoming)
        with suppress(LinkError):  # the channel has ended meanwhile, which is told elsewhere
            self._channel.ack(incoming.tag)

    def _cancelled(self, _: str) -> None:
        self.lose("the broker cancelled the consumer: its queue was deleted or moved")

    def lose(self, reason: str, *, tell: bool = True) -> None:
        """Hand over nothing any more. The first reason stays."""
        if self.lost is None:
            self.lost = reason
            if tell:
                self._on_loss(reason)

    async def close(self) -> None:
        """Close the channel; what is not acknowledged returns."""
        self.lose("closed by this side", tell=False)
        await self._channel.close()
