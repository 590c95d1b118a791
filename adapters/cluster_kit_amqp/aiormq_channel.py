"""A channel of the seam, on aiormq."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from aiormq.exceptions import ChannelClosed
from pamqp import encode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from cluster_kit_amqp.errors import translate
from cluster_kit_amqp.link import (
    Arguments,
    ExchangeKind,
    Incoming,
    LinkError,
    Message,
    QueueCounts,
    Unencodable,
)

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, DeliveredMessage
    from pamqp.common import FieldValue

    from cluster_kit_amqp.aiormq_calls import Calls, Closing

_CLOSE_TIMEOUT = 1.0  # seconds
_PERSISTENT = 2
_FRAME_OVERHEAD = 8
_SURELY_FITS = 4096  # bytes of headers, the smallest frame_max there is


class AiormqChannel:
    """Implements `cluster_kit_amqp.link.Channel`."""

    def __init__(self, channel: AbstractChannel, calls: Calls) -> None:
        self._channel, self._calls = channel, calls
        self._cancelled: dict[str, Callable[[str], None]] = {}
        channel.on_consumer_cancel_callbacks.add(self._consumer_cancelled)

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return not self._channel.is_closed

    def on_closed(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` when the channel has ended."""

        def ended(closing: asyncio.Future[object]) -> None:
            error = None if closing.cancelled() else closing.exception()
            callback(self._calls.lost or ("closed" if error is None else translate(error).reason))

        cast("Closing", self._channel).closing.add_done_callback(ended)

    # --- topology ----------------------------------------------------------------------------

    async def declare_exchange(self, name: str, kind: ExchangeKind) -> None:
        """Make a durable exchange, or compare."""
        async with self._calls.call():
            await self._channel.exchange_declare(name, exchange_type=kind, durable=True)

    async def declare_queue(self, name: str, arguments: Arguments) -> None:
        """Make a durable queue, or compare."""
        async with self._calls.call():
            await self._channel.queue_declare(name, durable=True, arguments=dict(arguments))

    async def declare_exclusive(self, name: str) -> None:
        """Make a queue of this link's own."""
        arguments = {"x-queue-type": "classic"}
        async with self._calls.call():
            await self._channel.queue_declare(
                name, exclusive=True, auto_delete=True, arguments=dict(arguments)
            )

    async def check_exchange(self, name: str) -> None:
        """Raise `ChannelDown` when it is not there."""
        async with self._calls.call():
            await self._channel.exchange_declare(name, passive=True)

    async def check_queue(self, name: str) -> QueueCounts:
        """Count, or raise `ChannelDown`."""
        async with self._calls.call():
            told = await self._channel.queue_declare(name, passive=True)
        return QueueCounts(ready=told.message_count or 0, consumers=told.consumer_count or 0)

    async def bind_queue(self, queue: str, exchange: str, key: str) -> None:
        """Let `exchange` route `key` to `queue`."""
        async with self._calls.call():
            await self._channel.queue_bind(queue, exchange, key)

    async def bind_exchange(self, target: str, source: str, key: str) -> None:
        """Let `source` route `key` to `target`."""
        async with self._calls.call():
            await self._channel.exchange_bind(target, source, key)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all in it."""
        async with self._calls.call():
            await self._channel.queue_delete(name)

    async def purge(self, queue: str) -> int:
        """Drop the ready messages."""
        async with self._calls.call():
            told = await self._channel.queue_purge(queue)
        return told.message_count or 0

    # --- messages ----------------------------------------------------------------------------

    async def publish(self, exchange: str, key: str, message: Message) -> None:
        """Publish and wait for the broker's answer."""
        properties = _properties(message)
        self._check_size(properties, message)
        async with self._calls.call():
            await self._channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=key,
                properties=properties,
                mandatory=True,
            )

    def _check_size(self, properties: Basic.Properties, message: Message) -> None:
        """Refuse what would end the connection: all properties must fit into one frame."""
        if _weight(message.headers) < _SURELY_FITS:
            return
        limit: int = self._channel.connection.connection_tune.frame_max or (1 << 17)
        try:
            size = len(ContentHeader(properties=properties).marshal()) + _FRAME_OVERHEAD
        except (TypeError, ValueError, struct.error) as exc:
            raise Unencodable(str(exc)) from exc
        if size > limit:
            raise Unencodable(f"the headers have {size} bytes, the broker allows {limit}")

    async def consume(
        self,
        queue: str,
        *,
        prefetch: int,
        on_message: Callable[[str, Incoming], None],
        on_cancelled: Callable[[str], None],
    ) -> str:
        """Start a consumer under a tag never used before.

        RabbitMQ 4.3 keeps the tag of a consumer it has cancelled, and ends a connection that
        uses it again.
        """
        tag = f"ck-{uuid.uuid4().hex}"

        async def deliver(message: DeliveredMessage) -> None:
            if (incoming := _incoming(message)) is not None:
                on_message(tag, incoming)

        self._cancelled[tag] = on_cancelled
        async with self._calls.call():
            await self._channel.basic_qos(prefetch_count=prefetch)
            await self._channel.basic_consume(queue, deliver, consumer_tag=tag)
        return tag

    def _consumer_cancelled(self, frame: Basic.Cancel) -> None:
        tell = self._cancelled.pop(frame.consumer_tag or "", None)
        if tell is not None:
            tell(frame.consumer_tag or "")

    async def cancel(self, tag: str) -> None:
        """End a consumer."""
        self._cancelled.pop(tag, None)
        async with self._calls.call():
            await self._channel.basic_cancel(tag)

    async def get(self, queue: str) -> Incoming | None:
        """Take one message."""
        async with self._calls.call():
            return _incoming(await self._channel.basic_get(queue))

    async def ack(self, tag: int) -> None:
        """Settle a delivery."""
        async with self._calls.call():
            await self._channel.basic_ack(tag)

    async def requeue(self, tag: int, *, multiple: bool = False) -> None:
        """Return one delivery, or all up to it."""
        async with self._calls.call():
            await self._channel.basic_nack(tag, multiple=multiple, requeue=True)

    async def close(self) -> None:
        """Close the channel; what is unsettled returns to its queue."""
        with suppress(LinkError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT), self._calls.call():
                await self._channel.close(ChannelClosed(0, "closed by this side"))


def _properties(message: Message) -> Basic.Properties:
    timestamp = None
    if message.timestamp is not None:
        timestamp = datetime.fromtimestamp(int(message.timestamp), UTC)
    return Basic.Properties(
        content_type=message.content_type,
        headers=_table(message.headers),
        delivery_mode=_PERSISTENT,
        expiration=None if message.expiration_ms is None else str(message.expiration_ms),
        message_id=message.message_id,
        timestamp=timestamp,
        app_id=message.app_id,
    )


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


# --- header values of foreign publishers, which must survive being published again ------------


def _table(headers: Mapping[str, object]) -> dict[str, Any]:
    return {
        name: value for name, found in headers.items() if (value := _value(found)) is not _NO_VALUE
    }


_NO_VALUE = object()


def _value(value: object) -> object:
    """Return what the encoder takes for `value`, or `_NO_VALUE` when nothing fits."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, bytes):
        value = bytearray(value)
    elif isinstance(value, float) and not _is_single(value):
        return repr(value)  # the encoder knows single precision only
    try:
        encode.encode_table_value(cast("FieldValue", value))
    except (TypeError, ValueError, OverflowError, RecursionError, struct.error):
        return str(value) if isinstance(value, int | float | Decimal | datetime) else _NO_VALUE
    return value


def _is_single(value: float) -> bool:
    try:
        return bool(struct.unpack(">f", struct.pack(">f", value))[0] == value)
    except OverflowError:
        return False


def _weight(headers: Mapping[str, object]) -> int:
    return sum(
        len(name) + (4 * len(value) if isinstance(value, str) else 64)
        for name, value in headers.items()
        if not isinstance(value, dict | list | bytes | bytearray)
    ) + (_SURELY_FITS if any(_is_nested(value) for value in headers.values()) else 0)


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list | bytes | bytearray)
