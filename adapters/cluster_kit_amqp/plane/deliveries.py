"""What the broker delivers on one channel, and to whom."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from cluster_kit_amqp.link import Incoming, Message
from cluster_kit_amqp.plane.contents import Content, whole
from cluster_kit_amqp.plane.fields import read_short
from cluster_kit_amqp.plane.frames import MalformedError
from cluster_kit_amqp.plane.settlements import Settlements

_TAG = struct.Struct(">QB")  # of a delivery, and bits

log = logging.getLogger(__name__)


class Consumer(NamedTuple):
    """A consumer and who hears of it; see `cluster_kit_amqp.link.Channel.consume`."""

    tag: str
    on_message: Callable[[str, Incoming], None]
    on_cancelled: Callable[[str], None]
    routed: bool


class Deliveries:
    """The consumers of a channel, and its deliveries until they are settled.

    Args:
        channel: its number.
        content: puts the messages together.

    Attributes:
        settlements: of what was delivered.
    """

    def __init__(self, channel: int, content: Content) -> None:
        self._channel, self._content = channel, content
        self._consumers: dict[bytes, Consumer] = {}
        self.settlements: Settlements = Settlements(channel)

    def add(self, consumer: Consumer) -> None:
        """Hand over what comes for a consumer."""
        self._consumers[consumer.tag.encode()] = consumer

    def remove(self, tag: bytes) -> Consumer | None:
        """Hand over no more to a consumer, and return it."""
        return self._consumers.pop(tag, None)

    def end(self) -> None:
        """Hand over no more to anyone."""
        self._consumers.clear()

    def take(self, data: bytes, start: int, stop: int, largest: int) -> int:
        """Read basic.deliver: consumer tag, delivery tag, bit "redelivered"; names follow.

        Return where what was taken ends: with it, the message where all of it is there.

        Raises:
            MalformedError: it is cut off.
        """
        at = start + 5 + data[start + 4]  # behind the ids and the tag of the consumer
        if at + 9 >= stop:
            raise MalformedError("a basic.deliver is cut off")
        tag, bits = _TAG.unpack_from(data, at)
        redelivered = bits & 1 != 0
        self.settlements.unsettled[tag] = None
        consumer = self._consumers.get(data[start + 5 : at])
        names = data[at + 9 : stop] if consumer is not None and consumer.routed else None
        found = whole(data, stop + 1, self._channel, largest)
        if found is None:
            self._content.begin(partial(self._complete, consumer, tag, redelivered, names))
            return stop + 1
        self._complete(consumer, tag, redelivered, names, found[0])
        return found[1]

    def _complete(
        self,
        consumer: Consumer | None,
        tag: int,
        redelivered: bool,  # noqa: FBT001 - bound by position, once for each message
        names: bytes | None,
        message: Message,
    ) -> None:
        if consumer is None:
            return  # of one that was ended meanwhile; it returns with the channel
        incoming = Incoming(message, tag, redelivered)
        try:
            if names is not None:
                incoming.exchange, at = read_short(names, 0)
                incoming.key, _ = read_short(names, at)
            consumer.on_message(consumer.tag, incoming)
        except Exception:
            log.exception("a delivery on channel %d could not be handed over", self._channel)
