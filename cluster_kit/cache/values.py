"""Values as callers see them, and as they are kept: encoded in a store, copied in and out here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, cast

from cluster_kit.codec import JsonCodec
from cluster_kit.errors import DecodeError, EncodeError, MessageTooLargeError

if TYPE_CHECKING:
    from cluster_kit.codec import Codec

CopyMode = Literal["deep", "none"]
"""Whether callers get copies of what is held here, or the very objects."""

Copier = Callable[[], object]
"""Makes a copy of a value that is held."""

Container = dict[str, object] | list[object]

MAX_DEPTH = 200
"""Lists and objects inside each other in a value. Each level of a copy is a call."""

_CONTAINERS = frozenset({dict, list})


class Missing:
    """What `MISSING` is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"  # a copy of it, or what was pickled, is still the only one

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()
"""Says that there is no value, where None may be one."""


class Loaded:
    """What `loaders.loaded` makes. No tuple and no dataclass: those have a JSON form."""

    __slots__ = ("keep", "ttl", "value")

    def __init__(self, value: object, ttl: float | None, *, keep: bool) -> None:
        self.value = value
        self.ttl = ttl
        self.keep = keep


class Values:
    """How one cache turns values into what it keeps.

    With ``copy="deep"`` a value is what its JSON says, in every store alike. With ``copy="none"``
    the very object is kept and handed out; it is encoded only where a store needs its bytes.

    Args:
        mode: of copying.
        encoded: whether there is a store that needs bytes.
        limit: largest encoded value, bytes.
    """

    def __init__(self, mode: CopyMode, *, encoded: bool, limit: int) -> None:
        self._shared = mode == "none"
        self._encoded = encoded or not self._shared
        self._limit = limit
        self._codec: Codec = JsonCodec("value", "keep")

    def encode(self, key: str, value: object) -> bytes:
        """Return the bytes of the value of a key; none where no store needs them.

        Raises:
            EncodeError: it has no JSON form, or is nested too deeply.
            MessageTooLargeError: over the limit.
        """
        if isinstance(value, Loaded):
            text = f"the value of {key!r} is made by loaded(), which is for what a loader returns"
            raise EncodeError(f"{text}; say ttl= in the call")
        if not self._encoded:
            return b""
        body = self._encode(key, value)
        if len(body) > self._limit:
            raise MessageTooLargeError(f"the value of {key!r}", len(body), self._limit)
        return body

    def unkept(self, key: str, value: object) -> object:
        """Return what callers are to have of a value that is kept nowhere.

        It is what its JSON says, as if it were kept, or where it has none the very object.
        """
        try:
            return value if self._shared else self.own(value, self._encode(key, value))
        except EncodeError:
            return value

    def _encode(self, key: str, value: object) -> bytes:
        try:
            body = self._codec.encode(value)
        except EncodeError as exc:
            text = str(exc).removeprefix("the value")
            raise EncodeError(f"the value of {key!r}{text}") from exc.__cause__
        if _is_deep(body):
            text = f"the value of {key!r} is nested more than {MAX_DEPTH} levels deep"
            raise EncodeError(text)
        return body

    def decode(self, body: bytes) -> object:
        """Return the value of these bytes.

        Raises:
            DecodeError: they are no JSON, or nested more deeply than any that was encoded.
        """
        if _is_deep(body):
            text = f"it is nested more than {MAX_DEPTH} levels deep"
            raise DecodeError(text)
        return self._codec.decode(body)

    def own(self, value: object, body: bytes) -> object:
        """Return what is to be kept here of a value a caller gave."""
        if self._shared or type(value) in _SCALARS:
            return value
        return self._codec.decode(body)

    def copier(self, value: object) -> Copier | None:
        """Return what makes copies of a value that is kept; None where it can be handed out."""
        if self._shared or type(value) not in _CONTAINERS:
            return None
        return _copier(cast("Container", value))

    def size(self, value: object, body: bytes) -> int:
        """Return about how many bytes it takes to keep a value here.

        It is made up of its JSON's marks, which costs next to nothing; those inside of texts count
        too. What has no JSON counts as if nothing were in it.
        """
        if not body or type(value) in _SCALARS:
            return sys.getsizeof(value)
        width = 1 if body.isascii() else 4 if b"\xf0" in body else 2  # of a character in memory
        return (
            width * len(body)
            + _CONTAINER_BYTES * (body.count(b"{") + body.count(b"["))
            + _ITEM_BYTES * (body.count(b",") + body.count(b":"))
        )


_CONTAINER_BYTES, _ITEM_BYTES = 300, 48  # measured, with what copies them

_SCALARS = frozenset({str, int, float, bool, type(None)})


_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_ELSE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*"')


def _is_deep(body: bytes) -> bool:
    """Whether a JSON text is nested more than `MAX_DEPTH` levels deep."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = _STRING.sub(b"", plain.translate(_BRACKETS, _ALL_ELSE).replace(b'""', b""))
    for _ in range(MAX_DEPTH):
        if not left:
            return False
        left = left.replace(b"[]", b"")  # the innermost level
    return bool(left)


def _copier(value: Container) -> Copier:
    """Return what copies this very value; where what it has in it is, is found out once."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    inner = [
        (place, _copier(cast("Container", item)))
        for place, item in pairs
        if type(item) in _CONTAINERS
    ]
    if not inner:
        return value.copy

    def copy() -> object:
        copied = cast("dict[object, object]", value.copy())
        for place, copy_inner in inner:
            copied[place] = copy_inner()
        return copied

    return copy
