"""Methods: what peers ask of each other and answer (1.3, in the order of the specification).

Each is known by class and method id, here together as one number, as they stand in the frame.
The few that are needed are written by hand: RabbitMQ takes any UTF-8 as a name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from cluster_kit_amqp.plane.fields import (
    U16,
    U32,
    U64,
    encode_table,
    long_string,
    read_short,
    read_table,
    short_string,
)
from cluster_kit_amqp.plane.frames import METHOD, MalformedError, frame


def _index(class_id: int, method_id: int) -> int:
    return class_id << 16 | method_id


CONNECTION_START: Final = _index(10, 10)
CONNECTION_START_OK: Final = _index(10, 11)
CONNECTION_SECURE: Final = _index(10, 20)
CONNECTION_TUNE: Final = _index(10, 30)
CONNECTION_TUNE_OK: Final = _index(10, 31)
CONNECTION_OPEN: Final = _index(10, 40)
CONNECTION_OPEN_OK: Final = _index(10, 41)
CONNECTION_CLOSE: Final = _index(10, 50)
CONNECTION_CLOSE_OK: Final = _index(10, 51)
CONNECTION_BLOCKED: Final = _index(10, 60)  # RabbitMQ's own
CONNECTION_UNBLOCKED: Final = _index(10, 61)  # RabbitMQ's own
CHANNEL_OPEN: Final = _index(20, 10)
CHANNEL_OPEN_OK: Final = _index(20, 11)
CHANNEL_FLOW: Final = _index(20, 20)
CHANNEL_FLOW_OK: Final = _index(20, 21)
CHANNEL_CLOSE: Final = _index(20, 40)
CHANNEL_CLOSE_OK: Final = _index(20, 41)
EXCHANGE_DECLARE: Final = _index(40, 10)
EXCHANGE_DECLARE_OK: Final = _index(40, 11)
EXCHANGE_BIND: Final = _index(40, 30)  # RabbitMQ's own
EXCHANGE_BIND_OK: Final = _index(40, 31)  # RabbitMQ's own
QUEUE_DECLARE: Final = _index(50, 10)
QUEUE_DECLARE_OK: Final = _index(50, 11)
QUEUE_BIND: Final = _index(50, 20)
QUEUE_BIND_OK: Final = _index(50, 21)
QUEUE_DELETE: Final = _index(50, 40)
QUEUE_DELETE_OK: Final = _index(50, 41)
QUEUE_UNBIND: Final = _index(50, 50)
QUEUE_UNBIND_OK: Final = _index(50, 51)
BASIC_QOS: Final = _index(60, 10)
BASIC_QOS_OK: Final = _index(60, 11)
BASIC_CONSUME: Final = _index(60, 20)
BASIC_CONSUME_OK: Final = _index(60, 21)
BASIC_CANCEL: Final = _index(60, 30)
BASIC_CANCEL_OK: Final = _index(60, 31)
BASIC_PUBLISH: Final = _index(60, 40)
BASIC_RETURN: Final = _index(60, 50)
BASIC_DELIVER: Final = _index(60, 60)
BASIC_ACK: Final = _index(60, 80)
BASIC_REJECT: Final = _index(60, 90)
BASIC_NACK: Final = _index(60, 120)  # RabbitMQ's own
CONFIRM_SELECT: Final = _index(85, 10)  # RabbitMQ's own
CONFIRM_SELECT_OK: Final = _index(85, 11)  # RabbitMQ's own

_RESERVED_SHORT = b"\x00\x00"  # "ticket" of 0-8, reserved
_RESERVED_STRING = b"\x00"
_NO_ARGUMENTS = b"\x00\x00\x00\x00"
_SETTLING = struct.Struct(">BHIIQBc")  # a whole frame of basic.ack, basic.nack or basic.reject
_SETTLING_SIZE = 13  # ids, delivery tag, octet of bits


def name(index: int) -> str:
    """Return the ids of a method for people to look up.

    >>> name(BASIC_ACK)
    '60.80'
    """
    return f"{index >> 16}.{index & 0xFFFF}"


def method(channel: int, index: int, arguments: bytes = b"") -> bytes:
    """Return a method's frame."""
    return frame(METHOD, channel, U32.pack(index) + arguments)


# --- connection ------------------------------------------------------------------------------


class Start(NamedTuple):
    """What a server says of itself first."""

    properties: Mapping[str, object]
    mechanisms: tuple[str, ...]


class Tuning(NamedTuple):
    """Limits of a connection: channels, bytes of a frame, seconds between heartbeats. 0: none."""

    channel_max: int
    frame_max: int
    heartbeat: int


_TUNE = struct.Struct(">HIH")


def read_start(arguments: bytes) -> Start:
    """Return connection.start: version in two octets, properties, mechanisms, locales."""
    properties, at = read_table(arguments, 2)
    (size,) = U32.unpack_from(arguments, at)
    mechanisms = arguments[at + 4 : at + 4 + size].decode()
    return Start(properties, tuple(mechanisms.split()))


def start_ok(properties: Mapping[str, object], mechanism: str, response: bytes) -> bytes:
    """Return connection.start-ok."""
    arguments = (
        encode_table(properties)
        + short_string(mechanism)
        + long_string(response)
        + short_string("en_US")
    )
    return method(0, CONNECTION_START_OK, arguments)


def read_tune(arguments: bytes) -> Tuning:
    """Return connection.tune."""
    return Tuning(*_TUNE.unpack_from(arguments))


def tune_ok(tuning: Tuning) -> bytes:
    """Return connection.tune-ok."""
    return method(0, CONNECTION_TUNE_OK, _TUNE.pack(*tuning))


def connection_open(vhost: str) -> bytes:
    """Return connection.open: virtual host, two reserved fields."""
    return method(0, CONNECTION_OPEN, short_string(vhost) + _RESERVED_STRING + b"\x00")


def close(channel: int, index: int, code: int, text: str) -> bytes:
    """Return connection.close or channel.close: reply code and text, and no method at fault."""
    return method(channel, index, U16.pack(code) + short_string(text) + bytes(4))


def read_close(arguments: bytes) -> tuple[int, str]:
    """Return reply code and text of connection.close or channel.close."""
    (code,) = U16.unpack_from(arguments)
    return code, read_text(arguments, 2)


def read_text(arguments: bytes, at: int = 0) -> str:
    """Return a short string that is for people: with what cannot be decoded replaced."""
    size = arguments[at] if at < len(arguments) else 0
    return arguments[at + 1 : at + 1 + size].decode("utf-8", "replace")


def read_flow(arguments: bytes) -> bool:
    """Return whether channel.flow lets messages pass."""
    return bool(arguments[0] & 1)


def flow_ok(channel: int, *, active: bool) -> bytes:
    """Return channel.flow-ok."""
    return method(channel, CHANNEL_FLOW_OK, b"\x01" if active else b"\x00")


# --- channels, queues ------------------------------------------------------------------------


def channel_open(channel: int) -> bytes:
    """Return channel.open."""
    return method(channel, CHANNEL_OPEN, _RESERVED_STRING)


def confirm_select(channel: int) -> bytes:
    """Return confirm.select, with an answer."""
    return method(channel, CONFIRM_SELECT, b"\x00")


def passive_declare(channel: int, queue: str) -> bytes:
    """Return queue.declare with the first of its bits, passive."""
    arguments = _RESERVED_SHORT + short_string(queue) + b"\x01" + _NO_ARGUMENTS
    return method(channel, QUEUE_DECLARE, arguments)


def declare_exchange(channel: int, exchange: str, kind: str, *, passive: bool) -> bytes:
    """Return exchange.declare: durable with bit 1, or passive with bit 0."""
    names = short_string(exchange) + short_string(kind)
    bits = b"\x01" if passive else b"\x02"
    return method(channel, EXCHANGE_DECLARE, _RESERVED_SHORT + names + bits + _NO_ARGUMENTS)


def bind_exchange(channel: int, target: str, source: str, key: str) -> bytes:
    """Return exchange.bind, with an answer."""
    names = short_string(target) + short_string(source) + short_string(key)
    return method(channel, EXCHANGE_BIND, _RESERVED_SHORT + names + b"\x00" + _NO_ARGUMENTS)


def declare_queue(
    channel: int, queue: str, arguments: Mapping[str, object], *, exclusive: bool
) -> bytes:
    """Return queue.declare: of this connection alone with its bit 2, else durable with bit 1."""
    bits = b"\x04" if exclusive else b"\x02"
    names = _RESERVED_SHORT + short_string(queue)
    return method(channel, QUEUE_DECLARE, names + bits + encode_table(arguments))


def bind_queue(channel: int, queue: str, exchange: str, key: str) -> bytes:
    """Return queue.bind, with an answer."""
    names = short_string(queue) + short_string(exchange) + short_string(key)
    return method(channel, QUEUE_BIND, _RESERVED_SHORT + names + b"\x00" + _NO_ARGUMENTS)


def unbind_queue(channel: int, queue: str, exchange: str, key: str) -> bytes:
    """Return queue.unbind."""
    names = short_string(queue) + short_string(exchange) + short_string(key)
    return method(channel, QUEUE_UNBIND, _RESERVED_SHORT + names + _NO_ARGUMENTS)


def delete_queue(channel: int, queue: str) -> bytes:
    """Return queue.delete: used or not, empty or not, with an answer."""
    return method(channel, QUEUE_DELETE, _RESERVED_SHORT + short_string(queue) + b"\x00")


def read_declared(arguments: bytes) -> tuple[int, int]:
    """Return messages and consumers in queue.declare-ok."""
    _, at = read_short(arguments, 0)
    return U32.unpack_from(arguments, at)[0], U32.unpack_from(arguments, at + 4)[0]


# --- messages --------------------------------------------------------------------------------


def qos(channel: int, prefetch: int) -> bytes:
    """Return basic.qos: no limit in bytes, `prefetch` messages, for each consumer."""
    return method(channel, BASIC_QOS, bytes(4) + U16.pack(min(prefetch, 0xFFFF)) + b"\x00")


def consume(channel: int, queue: str, tag: str, arguments: Mapping[str, object]) -> bytes:
    """Return basic.consume: no bits, so acknowledged, not exclusive, with an answer."""
    names = _RESERVED_SHORT + short_string(queue) + short_string(tag)
    return method(channel, BASIC_CONSUME, names + b"\x00" + encode_table(arguments))


def cancel(channel: int, tag: str) -> bytes:
    """Return basic.cancel, with an answer."""
    return method(channel, BASIC_CANCEL, short_string(tag) + b"\x00")


def cancel_ok(channel: int, tag: bytes) -> bytes:
    """Return basic.cancel-ok for a consumer the broker has cancelled (RabbitMQ's own)."""
    return method(channel, BASIC_CANCEL_OK, bytes((len(tag),)) + tag)


def publish(channel: int, exchange: str, key: str, *, mandatory: bool) -> bytes:
    """Return basic.publish; the first of its bits says mandatory."""
    names = short_string(exchange) + short_string(key)
    bits = b"\x01" if mandatory else b"\x00"
    return method(channel, BASIC_PUBLISH, _RESERVED_SHORT + names + bits)


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return basic.ack."""
    return _SETTLING.pack(METHOD, channel, _SETTLING_SIZE, BASIC_ACK, tag, multiple, b"\xce")


def requeue(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return basic.nack with its bit 1, requeue."""
    bits = 2 | multiple
    return _SETTLING.pack(METHOD, channel, _SETTLING_SIZE, BASIC_NACK, tag, bits, b"\xce")


def reject(channel: int, tag: int) -> bytes:
    """Return basic.reject with its bit, requeue."""
    return _SETTLING.pack(METHOD, channel, _SETTLING_SIZE, BASIC_REJECT, tag, 1, b"\xce")


def read_confirm(arguments: bytes) -> tuple[int, bool]:
    """Return delivery tag and "multiple" of basic.ack or basic.nack."""
    return U64.unpack_from(arguments)[0], bool(arguments[8] & 1)


class Return(NamedTuple):
    """A published message no queue took."""

    reason: str
    exchange: str
    key: str


def read_return(arguments: bytes) -> Return:
    """Return what basic.return tells beside the message: code, text, exchange, routing key."""
    text = read_text(arguments, 2)
    exchange, at = read_short(arguments, 3 + arguments[2])
    key, _ = read_short(arguments, at)
    return Return(text, exchange, key)


def read_cancel(arguments: bytes) -> tuple[bytes, bool]:
    """Return tag and "no-wait" of a basic.cancel sent by the broker (RabbitMQ's own)."""
    stop = 1 + arguments[0]
    if stop >= len(arguments):
        raise MalformedError("a basic.cancel is cut off")
    return arguments[1:stop], bool(arguments[stop] & 1)
