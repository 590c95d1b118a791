"""What a hub keeps as a task, and that as text for its file.

The text is JSON, with tags for what JSON lacks. Nothing in it can execute.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from cluster_kit.errors import EncodeError
from cluster_kit.message import DeadReason, Death, Envelope
from cluster_kit.names import QueueName

_SIMPLE_FIELDS = tuple(
    field.name
    for field in fields(Envelope)
    if field.name not in {"queue", "body", "headers", "death"}
)

_NUMBERS = ("published_at", "attempt", "max_retries", "timeout", "expires_at", "crashes")

_TAG = "$"
"""A dict with this one key stands for a value that JSON does not have."""


def check_envelope(envelope: Envelope) -> None:
    """Check what hub and consumers reckon with: one that is spoilt would break it for all others.

    Raises:
        EncodeError: a field is no number, or headers are no mapping; the text names it.
    """
    for name in _NUMBERS:
        value: object = getattr(envelope, name)
        number = math.isfinite(value) if isinstance(value, float) else isinstance(value, int)
        if not number and (value is not None or name in {"attempt", "crashes"}):
            raise EncodeError(f"{name} of task {envelope.id} is no number but {value!r:.80}")
    if not isinstance(cast("object", envelope.id), str):
        raise EncodeError(f"the id of a task is no text but {envelope.id!r:.80}")
    headers = cast("object", envelope.headers)
    if not isinstance(headers, Mapping):
        raise EncodeError(f"headers of task {envelope.id} are no mapping")


def encode_name(name: QueueName) -> str:
    """Return a queue's name as text."""
    return json.dumps([name.app, name.channel])


def decode_name(text: str) -> QueueName:
    """Return the name `encode_name` was given.

    Raises:
        ValueError: the text is something else.
    """
    match json.loads(text):
        case [str() | None as app, str() as channel]:
            return QueueName(app, channel)
        case _:
            raise ValueError(f"{text!r} is no queue name")


def encode_envelope(envelope: Envelope) -> str:
    """Return everything but the body as text.

    Raises:
        EncodeError: a header has a value that cannot be kept; the text names the header.
    """
    parts: dict[str, object] = {
        "queue": [envelope.queue.app, envelope.queue.channel],
        "headers": {name: _plain(name, value) for name, value in envelope.headers.items()},
        "death": None if envelope.death is None else asdict(envelope.death),
    }
    for name in _SIMPLE_FIELDS:
        parts[name] = getattr(envelope, name)
    return json.dumps(parts, separators=(",", ":"))


def decode_envelope(text: str, body: bytes) -> Envelope:
    """Return the envelope `encode_envelope` was given.

    Raises:
        ValueError: the text is something else.
    """
    try:
        parts: dict[str, Any] = json.loads(text)
        death = _death(parts.pop("death"))
        app, channel = parts.pop("queue")
        headers = {name: _rich(value) for name, value in parts.pop("headers").items()}
        envelope = Envelope(
            queue=QueueName(app, channel), headers=headers, death=death, body=body, **parts
        )
        check_envelope(envelope)
    except (ArithmeticError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"{text[:80]!r} is no task: {exc}") from exc
    return envelope


def _death(parts: dict[str, Any] | None) -> Death | None:
    if parts is None:
        return None
    reason = DeadReason(parts.pop("reason"))
    return Death(reason=reason, **parts)


def _plain(header: str, value: object) -> object:
    plain = value
    match value:
        case None | bool() | int() | float() | str():
            pass
        case list() | tuple():
            plain = [_plain(header, item) for item in cast("list[object]", value)]
        case dict():
            items = cast("Mapping[object, object]", value).items()
            plain = _tagged("dict", [[_plain(header, key), _plain(header, v)] for key, v in items])
        case bytes() | bytearray():
            plain = _tagged("bytes", base64.b64encode(value).decode())
        case datetime():
            plain = _tagged("time", value.isoformat())
        case Decimal():
            plain = _tagged("decimal", str(value))
        case _:
            kind = type(value).__name__
            raise EncodeError(f"header {header!r}: a {kind} cannot be kept in the hub's file")
    return plain


def _tagged(kind: str, value: object) -> dict[str, object]:
    return {_TAG: kind, "value": value}


def _rich(value: object) -> object:
    if isinstance(value, list):
        return [_rich(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        tagged = cast("dict[str, Any]", value)
        return _UNTAG[tagged[_TAG]](tagged["value"])
    return value


_UNTAG: Mapping[str, Callable[[Any], object]] = {
    "bytes": base64.b64decode,
    "time": datetime.fromisoformat,
    "decimal": Decimal,
    "dict": lambda pairs: {_rich(key): _rich(value) for key, value in pairs},
}
