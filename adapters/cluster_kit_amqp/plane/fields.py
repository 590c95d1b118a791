"""Field tables: the headers of a message, the properties of a peer (4.2.5.5).

Letters of types are those RabbitMQ uses, which differ from the specification for some numbers.
What is rare is left to pamqp.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from types import NoneType
from typing import Any

from cluster_kit_amqp.packed import Packed

U8 = struct.Struct(">B")
U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")
_I8, _I16, _I32, _I64 = (struct.Struct(f">{letter}") for letter in "bhiq")
_F64 = struct.Struct(">d")
_TYPED_SIZE = struct.Struct(">cI")
_TYPED_I32 = struct.Struct(">ci")
_TYPED_I64 = struct.Struct(">cq")
_TYPED_U64 = struct.Struct(">cQ")
_TYPED_F64 = struct.Struct(">cd")
_LAST_SMALL = 15
_LONGEST_SHORT = 255  # bytes of a short string: its length is one octet (4.2.5.3)
_LAST_SECOND = 0xFFFFFFFF  # of 32 bits, in 2106; a later timestamp was meant in milliseconds


class _UnfitError(Exception):
    """There is no type for a value."""


# --- encoding --------------------------------------------------------------------------------


def short_string(text: str) -> bytes:
    """Return a short string: one octet of length, then UTF-8 (4.2.5.3).

    Raises:
        ValueError: it has more than 255 bytes, or characters that have no UTF-8.
    """
    raw = text.encode()
    if len(raw) > _LONGEST_SHORT:
        raise ValueError(f"{text[:40]!r}... has {len(raw)} bytes, at most 255 can travel")
    return U8.pack(len(raw)) + raw


def long_string(raw: bytes) -> bytes:
    """Return a long string: four octets of length, then bytes (4.2.5.3)."""
    return U32.pack(len(raw)) + raw


known_short_string = lru_cache(maxsize=1024)(short_string)
"""As `short_string`, for those that come again: names of headers, content types."""


@lru_cache(maxsize=1024)
def _text_head(name: str) -> bytes:
    """Return what a field of text begins with: its name, and the letter of the type."""
    return short_string(name) + b"S"


@lru_cache(maxsize=1024)
def _small_number(name: str, value: int) -> bytes:
    """Return a whole field, with a number of those that come again."""
    return short_string(name) + _whole(value)


def encode_table(table: Mapping[str, object]) -> bytes:
    """Return a table: its size in bytes, then name, type and value of each field (4.2.5.5).

    Values no type fits are left out; numbers too large for theirs travel as text. What is packed
    already stays as it is.

    Raises:
        ValueError: a name is too long, or text has no UTF-8.
    """
    if type(table) is Packed:
        return table.raw
    parts: list[bytes] = []
    for name, value in table.items():
        if type(value) is str:
            raw = value.encode()
            parts += (_text_head(name), U32.pack(len(raw)), raw)
            continue
        if type(value) is int and 0 <= value <= _LAST_SMALL:
            parts.append(_small_number(name, value))
            continue
        try:
            encoded = _encode_value(value)
        except (_UnfitError, RecursionError):
            continue
        parts += (known_short_string(name), encoded)
    fields = b"".join(parts)
    return U32.pack(len(fields)) + fields


def _encode_value(value: object) -> bytes:
    """Return type and value of a field."""
    encoder = _ENCODERS.get(type(value)) or _encoder_of_base(value)
    return encoder(value)


def _encoder_of_base(value: object) -> _Encoder:
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder
    raise _UnfitError


def _whole(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return _TYPED_I32.pack(b"I", value)
    if -(2**63) <= value < 2**63:
        return _TYPED_I64.pack(b"l", value)
    return _text(value)


def _text(value: object) -> bytes:
    raw = str(value).encode()
    return _TYPED_SIZE.pack(b"S", len(raw)) + raw


def _octets(value: bytes | bytearray) -> bytes:
    return _TYPED_SIZE.pack(b"x", len(value)) + value


def _table(value: dict[str, object]) -> bytes:
    """As `encode_table`, but no value is left out: half a table says another thing."""
    fields = b"".join(
        [part for name, item in value.items() for part in (short_string(name), _encode_value(item))]
    )
    return _TYPED_SIZE.pack(b"F", len(fields)) + fields


def _array(value: list[object]) -> bytes:
    items = b"".join(map(_encode_value, value))
    return _TYPED_SIZE.pack(b"A", len(items)) + items


def _moment(value: datetime) -> bytes:
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    seconds = int(moment.timestamp())
    return _TYPED_U64.pack(b"T", seconds) if seconds >= 0 else _text(value)


def _decimal(value: Decimal) -> bytes:
    try:
        from pamqp import encode  # noqa: PLC0415 - costs too much for what hardly ever comes

        return encode.encode_table_value(value)
    except TypeError:  # more digits than the type has
        return _text(value)


_Encoder = Callable[[Any], bytes]
_ENCODERS: dict[type, _Encoder] = {
    bool: lambda value: b"t\x01" if value else b"t\x00",  # before int, of which it is one
    int: _whole,
    str: _text,
    NoneType: lambda _: b"V",
    float: lambda value: _TYPED_F64.pack(b"d", value),
    dict: _table,
    list: _array,
    bytes: _octets,
    bytearray: _octets,
    datetime: _moment,
    Decimal: _decimal,
}


# --- decoding --------------------------------------------------------------------------------


def read_short(data: bytes, at: int) -> tuple[str, int]:
    """Return the short string at `at` and where it ends.

    Raises:
        ValueError: it is cut off, or no UTF-8.
    """
    stop = at + 1 + data[at] if at < len(data) else at + 1
    if stop > len(data):
        raise ValueError("a short string is cut off")
    return data[at + 1 : stop].decode(), stop


def read_table(data: bytes, at: int) -> tuple[dict[str, object], int]:
    """Return the table at `at` and where it ends.

    Raises:
        ValueError, struct.error, IndexError, KeyError, RecursionError: it cannot be decoded.
    """
    (size,) = U32.unpack_from(data, at)
    end = at + 4 + size
    if end > len(data):
        raise ValueError("a table is cut off")
    return _read_fields(data, at + 4, end), end


def unpack_table(raw: bytes) -> dict[str, object] | None:
    """Return a whole table; None where it cannot be decoded.

    One message of a careless publisher must not end the connection, or it would do so again and
    again: it would be delivered again each time.
    """
    try:
        return read_table(raw, 0)[0]
    except Exception:  # noqa: BLE001 - whatever the decoder trips over
        return None


def _read_fields(data: bytes, at: int, end: int) -> dict[str, object]:
    table: dict[str, object] = {}
    while at < end:
        start = at + 1
        at = start + data[at]
        name = _known_name(data[start:at])
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + U32.unpack_from(data, at + 1)[0]
            raw = data[start:at]
            try:
                table[name] = raw.decode()
            except UnicodeDecodeError:
                table[name] = raw
        elif (number := _NUMBERS.get(kind)) is not None:
            unpack_from, size = number
            table[name] = unpack_from(data, at + 1)[0]
            at += size
        else:
            table[name], at = _read_value(data, at, end)
    if at != end:
        raise ValueError("a field is cut off")
    return table


@lru_cache(maxsize=1024)
def _known_name(raw: bytes) -> str:
    """Return the name of a field: they come again."""
    return raw.decode()


def _read_value(data: bytes, at: int, end: int) -> tuple[object, int]:
    """Return the value whose type is at `at`, and where it ends."""
    kind = data[at]
    if (number := _NUMBERS.get(kind)) is not None:
        unpack_from, size = number
        return unpack_from(data, at + 1)[0], at + size
    if (read := _READERS.get(kind)) is not None:
        return read(data, at + 1)
    from pamqp import decode  # noqa: PLC0415 - as above

    used, value = decode.embedded_value(data[at:end])
    return value, at + used


def _read_array(data: bytes, at: int) -> tuple[list[object], int]:
    end = at + 4 + U32.unpack_from(data, at)[0]
    at += 4
    items: list[object] = []
    while at < end:
        item, at = _read_value(data, at, end)
        items.append(item)
    if at != end:
        raise ValueError("an array is cut off")
    return items, end


def _read_moment(data: bytes, at: int) -> tuple[datetime, int]:
    seconds = U64.unpack_from(data, at)[0]
    if seconds > _LAST_SECOND:
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC), at + 8


_TEXT = ord("S")
_NUMBERS = {
    ord(letter): (form.unpack_from, 1 + form.size)
    for letter, form in zip("bBsuIild", (_I8, U8, _I16, U16, _I32, U32, _I64, _F64), strict=True)
}
"""Reader and size of each type of number, the letter of the type among it."""

_READERS: dict[int, Callable[[bytes, int], tuple[object, int]]] = {
    ord("t"): lambda data, at: (data[at] != 0, at + 1),
    ord("V"): lambda _, at: (None, at),
    ord("F"): read_table,
    ord("A"): _read_array,
    ord("T"): _read_moment,
}
