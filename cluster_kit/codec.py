"""Payloads as bytes. JSON, and nothing that can execute."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from cluster_kit.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Codec(Protocol):
    """Turns payloads into bytes and back."""

    content_type: str

    def encode(self, payload: object) -> bytes:
        """Return the bytes of `payload`, or raise `EncodeError` that names the place."""
        ...

    def decode(self, body: bytes) -> object:
        """Return the payload of `body`, or raise `DecodeError`."""
        ...


_CONTAINERS: tuple[type[object], ...] = (dict, list, tuple)


class JsonCodec:
    """UTF-8 JSON without NaN and infinities, which RFC 8259 does not know.

    Encodes what JSON has, and pydantic models by their JSON form.
    """

    content_type = "application/json"

    def encode(self, payload: object) -> bytes:
        """Return compact JSON.

        Raises:
            EncodeError: a value has no JSON form, a key is not a string, or NaN is inside.
        """
        try:
            _check_keys(payload)
            return _ENCODER.encode(payload).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise EncodeError(f"the payload is not JSON: {exc}") from exc

    def decode(self, body: bytes) -> object:
        """Return the value of a JSON text.

        Raises:
            DecodeError: not UTF-8, not JSON, or nested too deeply.
        """
        try:
            return _DECODER.decode(body.decode())
        except (ValueError, RecursionError) as exc:
            raise DecodeError(f"the body is not JSON: {exc}") from exc


def _plain(value: object) -> object:
    """Give json a plain form of a pydantic model; everything else it cannot encode is an error."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    text = f"{type(value).__name__} has no JSON form"
    raise TypeError(text)


def _check_keys(value: object) -> None:
    """Refuse keys that JSON would turn into strings: {1: …} would come back as {"1": …}."""
    if isinstance(value, dict):
        for key in cast("dict[object, object]", value):
            if not isinstance(key, str):
                text = f"key {key!r} is {type(key).__name__}, JSON keys are strings"
                raise TypeError(text)
        items = cast("Iterable[object]", value.values())
    elif isinstance(value, list | tuple):
        items = cast("Iterable[object]", value)
    else:
        return
    for item in items:
        if isinstance(item, _CONTAINERS):  # asked here: most are none, and a call costs more
            _check_keys(item)


def _finite(text: str) -> float:
    """Refuse 1e999, which would become an infinity that cannot be encoded again."""
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _refuse_constant(name: str) -> NoReturn:
    text = f"{name} is not JSON"
    raise ValueError(text)


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
