"""Payloads as bytes. JSON, and nothing that can execute."""

from __future__ import annotations

import json
import json.encoder
import math
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from cluster_kit.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Codec(Protocol):
    """Turns payloads into bytes and back."""

    content_type: str

    def encode(self, payload: object) -> bytes:
        """Return the bytes of `payload`, or raise `EncodeError` that names the place."""
        ...

    def decode(self, body: bytes) -> object:
        """Return the payload of `body`, or raise `DecodeError`."""
        ...


_DEEPEST_PLACE = 20  # levels down to which an error names the place
_TEXTS = {("decimal", "Decimal"), ("uuid", "UUID")}  # by name, as few programs need them loaded
_CONTAINERS: tuple[type[object], ...] = (dict, list, tuple)


class JsonCodec:
    """UTF-8 JSON without NaN and infinities, which RFC 8259 does not know.

    Encodes what JSON has, dataclasses by their fields, and pydantic models by their JSON form.

    Args:
        what: is encoded, for errors.
        use: what is done with it, likewise.
    """

    content_type = "application/json"

    def __init__(self, what: str = "payload", use: str = "publish") -> None:
        self._what = what
        self._use = use

    def encode(self, payload: object) -> bytes:
        """Return compact JSON.

        Raises:
            EncodeError: a value has no JSON form, a key is not a string, or NaN is inside.
        """
        try:
            text = "".join(_pieces(payload, 0))
            if _KEY_NOT_TEXT.search(text):
                _check_keys(payload)
            return text.encode()
        except (TypeError, ValueError, RecursionError) as exc:
            reason = _explained(exc, payload, self._what, self._use)
            raise EncodeError(f"the {self._what} is not JSON: {reason}") from exc

    def decode(self, body: bytes) -> object:
        """Return the value of a JSON text.

        Raises:
            DecodeError: not UTF-8, not JSON, or nested too deeply.
        """
        try:
            text = body.decode().strip(_WHITESPACE)
            value, end = _DECODER.raw_decode(text)
            # What is behind it makes the whole an error, which the slower call words.
            return value if end == len(text) else _DECODER.decode(text)
        except (ValueError, RecursionError) as exc:
            raise DecodeError(f"the body is not JSON: {exc}") from exc


def _plain(value: object) -> object:
    """Give json a plain form of a model or dataclass; all else it cannot encode is an error."""
    if isinstance(value, type):
        text = f"{value.__name__} is a class, not a value of it"
        raise TypeError(text)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if is_dataclass(value):
        plain = {field.name: getattr(value, field.name) for field in fields(value)}
        _check_keys(plain)
        return plain
    text = f"{type(value).__name__} has no JSON form"
    raise TypeError(text)


def _explained(error: Exception, payload: object, what: str, use: str) -> str:
    """Return what is wrong with `payload`, and where in it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or inside itself"
    error = _error_of_keys(payload) or error
    path = ""
    for _ in range(_DEEPEST_PLACE):
        found = next(((step, v) for step, v in _inside(payload) if not _can_encode(v)), None)
        if found is None:
            break
        step, payload = found
        path += step
    place = f" (at {what}{path})" if path else ""
    return f"{error}{place}{_remedy(payload, use)}"


def _remedy(value: object, use: str) -> str:
    """Return what to do instead with a value that has no JSON form, where that is clear."""
    if hasattr(value, "isoformat"):
        return f"; {use} its isoformat()"
    texts = any((kind.__module__, kind.__name__) in _TEXTS for kind in type(value).__mro__)
    return f"; {use} its str()" if texts else ""


def _error_of_keys(payload: object) -> Exception | None:
    """Return what is wrong with a key: of those json itself refuses it says less."""
    try:
        _check_keys(payload)
    except (TypeError, RecursionError) as exc:
        return exc
    return None


def _inside(value: object) -> Iterator[tuple[str, object]]:
    """Iterate over what `value` holds, each with the step that leads there."""
    if isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            yield f"[{key!r}]", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("Sequence[object]", value)):
            yield f"[{index}]", item
    elif is_dataclass(value):
        for field in fields(value):
            yield f".{field.name}", getattr(value, field.name)


def _can_encode(value: object) -> bool:
    try:
        _check_keys(value)
        "".join(_pieces(value, 0))
    except (TypeError, ValueError, RecursionError):
        return False
    return True


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


def _make_encoder() -> Callable[[object, int], Iterable[str]]:
    """Return what turns a payload into pieces of text, from indentation 0 on.

    It is json's encoder in C, which json makes anew at every call.
    """
    whole = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
    )
    make: Callable[..., Callable[[object, int], Iterable[str]]] | None
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without it
        return lambda payload, _: (whole.encode(payload),)
    # No markers: what is inside itself ends in a RecursionError. Then as above.
    quote = json.encoder.encode_basestring
    pieces: Callable[[object, int], Iterable[str]]
    pieces = make(None, _plain, quote, None, ":", ",", False, False, False)  # noqa: FBT003 - C
    return pieces


_pieces = _make_encoder()
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_WHITESPACE = " \t\n\r"  # RFC 8259, 2
_KEY_NOT_TEXT = re.compile(r'"(?=[-0-9tfn])(?:-?[0-9][^"]*|true|false|null)":')
"""Finds every key json made a string of, and strings that look the same."""
