"""The headers most tasks have, as one structure: id, attempt, origin, time of publication.

A task whose options are all left to the subscription, and whose id this library made, has these
four and no other. What differs in anything goes the general way of `cluster_kit_amqp.wire` and
the tables of the protocol, which says the same.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster_kit.message import Envelope
from cluster_kit_amqp.link import Message, Packed

if TYPE_CHECKING:
    from cluster_kit.names import QueueName

MAX_MS = 253_402_300_799_000
"""The end of the year 9999, milliseconds since 1970: the last a datetime can be."""

_ID_SIZE = 32  # bytes, of ids this library makes
_LONGEST_ORIGIN = 255  # bytes
_NAMES = ("ck-id", "ck-attempt", "ck-origin", "ck-published-at")
_NOTHING_OF_ITS_OWN = (None, None, None)
_LAST_SMALL = 2**31 - 1  # of the type an attempt has, and a time has not
# Names with their length, letters of types, the length of the id (4.2.5.5).
_ID = b"\x05ck-idS\x00\x00\x00\x20"
_ATTEMPT = b"\x0ack-attemptI"
_ORIGIN = b"\x09ck-originS"
_PUBLISHED_AT = b"\x0fck-published-atl"
_FIELDS = ">I11s32s12si11sI{}s17sq"
_SIZE_WITHOUT_ORIGIN = struct.calcsize(_FIELDS.format(0))


Plain = tuple[str, int, str, int]
"""What the four say, in their order; the time in milliseconds since 1970."""


def plain_headers(envelope: Envelope) -> Packed | None:
    """Return the headers of a task; None when it has others."""
    published_at = envelope.published_at
    if envelope.headers or published_at is None or envelope.crashes or envelope.death is not None:
        return None
    if (envelope.max_retries, envelope.timeout, envelope.expires_at) != _NOTHING_OF_ITS_OWN:
        return None
    milliseconds = round(published_at * 1000)
    raw = pack(envelope.id, envelope.attempt, envelope.origin, milliseconds)
    return None if raw is None else Packed(raw, unpack)


def plain_envelope(packed: Packed, message: Message, queue: QueueName) -> Envelope | None:
    """Return what a message of `queue` says; None when its headers are others."""
    found = read(packed.raw)
    if found is None:
        return None
    id_, attempt, origin, milliseconds = found
    known = 0 <= milliseconds <= MAX_MS
    return Envelope(
        queue=queue,
        id=id_,
        body=message.body,
        content_type=message.content_type or None,
        published_at=milliseconds / 1000 if known else message.timestamp,
        attempt=max(attempt, 1),
        origin=origin,
        headers={},
    )


@lru_cache(maxsize=256)
def _fields(origin_size: int) -> struct.Struct:
    return struct.Struct(_FIELDS.format(origin_size))


def pack(id_: str, attempt: int, origin: str, published_at_ms: int) -> bytes | None:
    """Return the table; None when it would not be one of the kind."""
    size = len(origin)
    if len(id_) != _ID_SIZE or not 0 < size <= _LONGEST_ORIGIN or attempt > _LAST_SMALL:
        return None
    if not (id_.isascii() and origin.isascii()) or published_at_ms <= _LAST_SMALL:
        return None
    whole = _SIZE_WITHOUT_ORIGIN + size - 4
    last = (_PUBLISHED_AT, published_at_ms)
    return _fields(size).pack(
        whole, _ID, id_.encode(), _ATTEMPT, attempt, _ORIGIN, size, origin.encode(), *last
    )


def read(raw: bytes) -> Plain | None:
    """Return what a table says; None when it is none of the kind."""
    size = len(raw) - _SIZE_WITHOUT_ORIGIN
    if not 0 < size <= _LONGEST_ORIGIN:
        return None
    whole, one, id_, two, attempt, three, told, origin, four, ms = _fields(size).unpack(raw)
    if one != _ID or two != _ATTEMPT or three != _ORIGIN or four != _PUBLISHED_AT:
        return None
    if told != size or whole != len(raw) - 4 or not (id_.isalnum() and origin.isascii()):
        return None
    return id_.decode(), attempt, origin.decode(), ms


def unpack(raw: bytes) -> Mapping[str, object] | None:
    """As `read`, by the names of the headers."""
    found = read(raw)
    return None if found is None else dict(zip(_NAMES, found, strict=True))
