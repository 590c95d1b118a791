"""What a store holds for a key: a head, the versions it stands on, and the payload.

::

     0  2  magic           20  8  created, ms since 1970    52  2  number of tags
     2  1  format          28  8  life, ms; 0 for ever      54  4  length of the payload
     3  1  kind            36  8  grace after it, ms        58  4  CRC-32 of all else
     4  8  stamp           44  8  promised until, ms       62  …  tags, then the payload
    12  8  epoch

A tag is the length of its name, the name, and the version it had. Numbers are big-endian. The
first 12 bytes differ between any two values of a key, for the stamp is random.
"""

from __future__ import annotations

import os
import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.cache.options import check_tag
from cluster_kit.ports import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

STAMP_BYTES = 8
"""Of a stamp, an epoch and the version of a tag, each random."""

_HEAD = struct.Struct(">2sBB8s8sQQQQHI")
_CRC = struct.Struct(">I")
_START = _HEAD.size + _CRC.size
_MAGIC, _FORMAT = b"\xc7k", 1
_BEGINNING = _MAGIC + bytes([_FORMAT])
_MS = 1000
_LATEST = 2**53  # milliseconds, more than 200,000 years, and what a float still counts exactly


class CorruptEntryError(ValueError):
    """What the store holds is no entry of a cache, or not a whole one."""


class Kind(IntEnum):
    """What an entry is."""

    VALUE = 1
    """A value; with a promise, one that somebody is renewing."""

    PROMISE = 2
    """No value yet: somebody is loading it."""


class Record(NamedTuple):
    """An entry, taken apart. Times are seconds; `created` and `promised` since 1970.

    Attributes:
        kind: what it is.
        epoch: version of the whole cache it was made under.
        created: when its value was stored.
        ttl: how long its value counts from then on; None for ever.
        grace: how long after that it may still be used when no better value can be had.
        promised: until when somebody is loading a newer one; 0 for nobody.
        tags: with the versions they had before the value was loaded.
        payload: the encoded value.
        stamp: random, of this very entry.
    """

    kind: Kind
    epoch: bytes
    created: float
    ttl: float | None
    grace: float
    promised: float
    tags: Mapping[str, bytes]
    payload: bytes
    stamp: bytes

    @property
    def life(self) -> float | None:
        """Seconds the store is to keep it; None for ever."""
        return None if self.ttl is None else self.ttl + self.grace

    def left(self, now: float) -> float | None:
        """Return the seconds its value still counts, 0 or less when it does not; None for ever.

        A clock that is behind that of the writer prolongs nothing.
        """
        return None if self.ttl is None else self.ttl - max(0.0, now - self.created)


def new_stamp() -> bytes:
    """Return what no other entry has."""
    return os.urandom(STAMP_BYTES)


def pack(record: Record) -> bytes:
    """Return the bytes of an entry."""
    tags = b"".join(
        len(name := tag.encode()).to_bytes() + name + version
        for tag, version in record.tags.items()
    )
    head = _HEAD.pack(
        _MAGIC,
        _FORMAT,
        record.kind,
        record.stamp,
        record.epoch,
        round(record.created * _MS),
        0 if record.ttl is None else max(1, round(record.ttl * _MS)),
        round(record.grace * _MS),
        round(record.promised * _MS),
        len(record.tags),
        len(record.payload),
    )
    body = tags + record.payload
    return head + _CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


def unpack(data: bytes) -> Record:
    """Return the entry of these bytes.

    Raises:
        CorruptEntryError: they are none.
    """
    head, body = data[: _HEAD.size], data[_START:]
    if len(data) < _START or not head.startswith(_BEGINNING):
        raise CorruptEntryError("no entry of this format")
    if data[_HEAD.size : _START] != _CRC.pack(zlib.crc32(body, zlib.crc32(head))):
        raise CorruptEntryError("the checksum is wrong")
    try:
        return _unpack(head, body)
    except (ValueError, IndexError) as exc:
        raise CorruptEntryError(str(exc)) from exc


def _unpack(head: bytes, body: bytes) -> Record:
    _, _, kind, stamp, epoch, created, ttl, grace, promised, count, size = _HEAD.unpack(head)
    if max(created, ttl, grace, promised) > _LATEST:
        raise CorruptEntryError("its times are none")
    tags: dict[str, bytes] = {}
    at = 0
    for _ in range(count):
        end = at + 1 + body[at]
        tags[check_tag(body[at + 1 : end].decode())] = body[end : end + STAMP_BYTES]
        at = end + STAMP_BYTES
    payload = body[at:] if tags else body
    if len(payload) != size:
        raise CorruptEntryError("its length is wrong")
    return Record(
        kind=Kind(kind),
        epoch=epoch,
        created=created / _MS,
        ttl=ttl / _MS if ttl else None,
        grace=grace / _MS,
        promised=promised / _MS,
        tags=tags,
        payload=payload,
        stamp=stamp,
    )


def head_of(data: bytes) -> bytes:
    """Return what tells this value from every other one of its key."""
    return data[:HEAD_BYTES]


def removed_value(data: bytes | None, epoch: bytes | None, now: float) -> bool:
    """Whether what was removed, of which the beginning is known, was a value that counted."""
    if data is None or len(data) < _START or not data.startswith(_BEGINNING):
        return False
    _, _, kind, _, own, created, ttl, *_ = _HEAD.unpack(data[: _HEAD.size])
    if kind != Kind.VALUE or epoch not in {None, own}:
        return False
    return not ttl or now * _MS < created + ttl
