"""The headers most tasks have, as one structure: attempt, id, origin, time of publication.

A task whose options are all left to the subscription, and whose id this library made, has these
four and no other. What differs in anything goes the general way of
`cluster_kit_amqp.tasks.wire` and the tables of the protocol, which says the same.

They travel in the order of their names: RabbitMQ 4 hands the headers of a quorum queue out in that
order, whatever order they came in.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.message import Envelope
from cluster_kit_amqp.link import Message
from cluster_kit_amqp.packed import Packed

if TYPE_CHECKING:
    from cluster_kit.names import QueueName

MAX_MS = 253_402_300_799_000
"""The end of the year 9999, milliseconds since 1970: the last a datetime can be."""

_ID_SIZE = 32  # bytes, of ids this library makes
_LONGEST_ORIGIN = 255  # bytes
_NAMES = ("ck-attempt", "ck-id", "ck-origin", "ck-published-at")
_LAST_SMALL = 2**31 - 1  # of the type an attempt has, and a time has not
# Names with their length, letters of types, the length of the id (4.2.5.5).
_ATTEMPT = b"\x0ack-attemptI"
_ID = b"\x05ck-idS\x00\x00\x00\x20"
_ORIGIN = b"\x09ck-originS"
_PUBLISHED_AT = b"\x0fck-published-atl"
_U32 = struct.Struct(">I")
_NAMES_SIZE = len(_ATTEMPT) + len(_ID) + len(_ORIGIN) + len(_PUBLISHED_AT)
_SIZE_WITHOUT_ORIGIN = 4 + _NAMES_SIZE + _ID_SIZE + 4 + 4 + 8  # sizes and numbers beside


Plain = tuple[int, str, str, int]
"""What the four say, in their order; the time in milliseconds since 1970."""


class _Layout(NamedTuple):
    """What is the same in all tables with an origin of this length."""

    fields: struct.Struct
    start: bytes  # up to the attempt


@lru_cache(maxsize=256)
def _layout(origin_size: int) -> _Layout:
    middle = len(_ORIGIN) + 4 + origin_size + len(_PUBLISHED_AT)
    start = _U32.pack(_SIZE_WITHOUT_ORIGIN + origin_size - 4) + _ATTEMPT
    return _Layout(struct.Struct(f">{len(start)}si{len(_ID)}s32s{middle}sq"), start)


@lru_cache(maxsize=256)
def _middle(origin: str) -> bytes | None:
    """Return what stands between the id and the last number: the origin, and that one's name."""
    if not (origin.isascii() and 0 < len(origin) <= _LONGEST_ORIGIN):
        return None
    return _ORIGIN + _U32.pack(len(origin)) + origin.encode() + _PUBLISHED_AT


@lru_cache(maxsize=256)
def _origin(middle: bytes) -> str | None:
    """Return the origin that stands behind the id; None when something else does."""
    raw = middle[len(_ORIGIN) + 4 : -len(_PUBLISHED_AT)]
    return raw.decode() if raw.isascii() and _middle(raw.decode()) == middle else None


def plain_headers(envelope: Envelope) -> Packed | None:
    """Return the headers of a task; None when it has others, or one that does not fit."""
    published_at, id_, attempt = envelope.published_at, envelope.id, envelope.attempt
    if envelope.headers or published_at is None or envelope.crashes or envelope.death is not None:
        return None
    if not (envelope.max_retries is envelope.timeout is envelope.expires_at is None):
        return None
    milliseconds, middle = round(published_at * 1000), _middle(envelope.origin)
    if middle is None or len(id_) != _ID_SIZE or not id_.isascii():
        return None
    if attempt > _LAST_SMALL or milliseconds <= _LAST_SMALL:
        return None
    fields, start = _layout(len(envelope.origin))
    raw = fields.pack(start, attempt, _ID, id_.encode(), middle, milliseconds)
    return Packed(raw, unpack)


def plain_envelope(packed: Packed, message: Message, queue: QueueName) -> Envelope | None:
    """Return what a message of `queue` says; None when its headers are others."""
    found = read(packed.raw)
    if found is None:
        return None
    attempt, id_, origin, milliseconds = found
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


def read(raw: bytes) -> Plain | None:
    """Return what a table says; None when it is none of the kind."""
    size = len(raw) - _SIZE_WITHOUT_ORIGIN
    if not 0 < size <= _LONGEST_ORIGIN:
        return None
    fields, start = _layout(size)
    one, attempt, two, id_, middle, milliseconds = fields.unpack(raw)
    origin = _origin(middle)
    if one != start or two != _ID or origin is None or not id_.isalnum():
        return None
    return attempt, id_.decode(), origin, milliseconds


def unpack(raw: bytes) -> Mapping[str, object] | None:
    """As `read`, by the names of the headers."""
    found = read(raw)
    return None if found is None else dict(zip(_NAMES, found, strict=True))
