"""The content header of a message: the size of its body, and its properties (4.2.6.1).

A word of flags tells which properties follow; they come in the order of their flags, which is
that of the specification's list under "basic class".
"""

from __future__ import annotations

import struct
from functools import lru_cache

from cluster_kit_amqp.link import Message
from cluster_kit_amqp.packed import Packed
from cluster_kit_amqp.plane.fields import (
    U32,
    U64,
    encode_table,
    known_short_string,
    read_short,
    read_table,
    short_string,
    unpack_table,
)

BASIC = 60  # class id of what carries messages

_START = struct.Struct(">HHQH")  # class, weight, size of the body, flags (4.2.6.1)
_START_SIZE = 14
_WEIGHT = 0  # unused (4.2.6.1)

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8
_MESSAGE_ID, _TIMESTAMP, _TYPE, _USER_ID, _APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 4, 1 << 3
_BEFORE_MESSAGE_ID = _CORRELATION_ID | _REPLY_TO | _EXPIRATION
_BEFORE_APP_ID = _TYPE | _USER_ID
_OUR_FLAGS = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP | _APP_ID
_MORE_FLAGS = 1  # 4.2.6.1: another word of flags follows; no property of today is there
_TRANSIENT, _PERSISTENT = b"\x01", b"\x02"
_ID_SIZE = 32  # bytes, of ids this library makes
_OUR_END = struct.Struct(">cB32sQ")  # delivery mode, message id with its size, timestamp
_LAST_SECOND = 0xFFFFFFFF  # of 32 bits, in 2106; a later timestamp was meant in milliseconds
_LAST_MILLISECOND = 253_402_300_799_000  # of the year 9999, the last a datetime can be


def encode_header(message: Message) -> bytes:
    """Return the payload of the header frame of a message.

    Raises:
        ValueError: a text is longer than its property may be, or has no UTF-8.
        struct.error: the timestamp lies before 1970.
    """
    if type(message.headers) is Packed and (header := _encode_ours(message, message.headers.raw)):
        return header
    flags = _HEADERS | _DELIVERY_MODE
    parts = [b""]
    if message.content_type:
        flags |= _CONTENT_TYPE
        parts.append(known_short_string(message.content_type))
    mode = _PERSISTENT if message.persistent else _TRANSIENT
    parts += (encode_table(message.headers), mode)
    if message.expiration_ms is not None:
        flags |= _EXPIRATION
        parts.append(short_string(str(message.expiration_ms)))
    if message.message_id:
        flags |= _MESSAGE_ID
        parts.append(short_string(message.message_id))
    if message.timestamp is not None:
        flags |= _TIMESTAMP
        parts.append(U64.pack(int(message.timestamp)))
    if message.app_id:
        flags |= _APP_ID
        parts.append(known_short_string(message.app_id))
    parts[0] = _START.pack(BASIC, _WEIGHT, len(message.body), flags)
    return b"".join(parts)


def _encode_ours(message: Message, table: bytes) -> bytes | None:
    """As `encode_header`, for the properties most messages have; None where some are missing."""
    content_type, app_id = message.content_type, message.app_id
    id_, timestamp = message.message_id, message.timestamp
    if not (content_type and app_id and id_ and message.persistent) or timestamp is None:
        return None
    if message.expiration_ms is not None or len(id_) != _ID_SIZE or not id_.isascii():
        return None
    start = _START.pack(BASIC, _WEIGHT, len(message.body), _OUR_FLAGS)
    end = _OUR_END.pack(_PERSISTENT, _ID_SIZE, id_.encode(), int(timestamp))
    return b"".join(
        (start, known_short_string(content_type), table, end, known_short_string(app_id))
    )


def body_size(payload: bytes) -> int:
    """Return the size of the body that follows, bytes.

    Raises:
        struct.error: the header is cut off.
    """
    size: int = _START.unpack_from(payload)[2]
    return size


def decode_message(payload: bytes, body: bytes = b"") -> Message:
    """Return the message of a header frame, without properties where they cannot be decoded.

    One message of a careless publisher must not end the connection, or it would do so again and
    again: it would be delivered again each time.
    """
    try:
        flags: int = _START.unpack_from(payload)[3]
        if flags == _OUR_FLAGS and (message := _decode_ours(payload, body)):
            return message
        return Message(body) if flags & _MORE_FLAGS else _decode(payload, body, flags)
    except Exception:  # noqa: BLE001 - whatever the decoder trips over
        return Message(body)


def _decode(payload: bytes, body: bytes, flags: int) -> Message:
    at = _START_SIZE
    content_type = message_id = app_id = timestamp = None
    headers: dict[str, object] = {}
    if flags & _CONTENT_TYPE:
        content_type, at = read_short(payload, at)
    at = _skip_short(payload, at, flags & _CONTENT_ENCODING)
    if flags & _HEADERS:
        headers, at = read_table(payload, at)
    at += (flags & (_DELIVERY_MODE | _PRIORITY)).bit_count()  # an octet each
    at = _skip_short(payload, at, flags & _BEFORE_MESSAGE_ID)
    if flags & _MESSAGE_ID:
        message_id, at = read_short(payload, at)
    if flags & _TIMESTAMP:
        timestamp = _seconds(U64.unpack_from(payload, at)[0])
        at += 8
    at = _skip_short(payload, at, flags & _BEFORE_APP_ID)
    if flags & _APP_ID:
        app_id, at = read_short(payload, at)
    return Message(body, headers, message_id, content_type, app_id, timestamp)


def _decode_ours(payload: bytes, body: bytes) -> Message | None:
    """As `_decode`, for the properties this library sets; None where something is behind them."""
    type_size: int = payload[_START_SIZE]
    table_size: int = U32.unpack_from(payload, _START_SIZE + 1 + type_size)[0]
    id_size = payload[_START_SIZE + 6 + type_size + table_size]  # behind the delivery mode
    fields, rest = _layout(type_size, table_size, id_size, len(payload))
    content_type, table, id_, sent, app_size, app_id = fields.unpack(payload)
    if app_size != rest:
        return None
    if sent > _LAST_SECOND:
        sent = _seconds(sent)
    headers = Packed(table, unpack_table)
    return Message(
        body, headers, id_.decode(), _known_text(content_type), _known_text(app_id), sent
    )


@lru_cache(maxsize=1024)
def _layout(type_size: int, table_size: int, id_size: int, size: int) -> tuple[struct.Struct, int]:
    """Return how the properties this library sets lie in so many bytes, and the last one's size.

    Raises:
        struct.error: they are cut off.
    """
    before_last = f">{_START_SIZE + 1}x{type_size}s{4 + table_size}s2x{id_size}sQB"
    rest = size - struct.calcsize(before_last)
    return struct.Struct(f"{before_last}{rest}s"), rest


@lru_cache(maxsize=1024)
def _known_text(raw: bytes) -> str:
    """Return a text that comes again."""
    return raw.decode()


def _seconds(timestamp: int) -> float | None:
    if timestamp <= _LAST_SECOND:
        return timestamp
    return timestamp / 1000 if timestamp <= _LAST_MILLISECOND else None


def _skip_short(payload: bytes, at: int, flags: int) -> int:
    """Return where those short strings end of which `flags` has a bit each."""
    if flags:
        for _ in range(flags.bit_count()):
            at += 1 + payload[at]
    return at
