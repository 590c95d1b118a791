"""A task as text for the file: JSON, with tags for what JSON lacks. Nothing in it can execute."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from cluster_kit.errors import EncodeError
from cluster_kit.message import DeadReason, Death, Envelope
from cluster_kit.names import QueueName

if TYPE_CHECKING:
    from collections.abc import Mapping

_TAG = "$"
"""A dict with this one key stands for a value that JSON does not have."""


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
    fields: dict[str, object] = {
        "queue": [envelope.queue.app, envelope.queue.channel],
        "headers": {name: _plain(name, value) for name, value in envelope.headers.items()},
        "death": None if envelope.death is None else asdict(envelope.death),
    }
    for name in _SIMPLE_FIELDS:
        fields[name] = getattr(envelope, name)
    return json.dumps(fields, separators=(",", ":"))


_SIMPLE_FIELDS = (
    "id", "content_type", "published_at", "attempt", "max_retries", "timeout", "expires_at", "origin",
)  # fmt: skip


def decode_envelope(text: str, body: bytes) -> Envelope:
    """Return the envelope `encode_envelope` was given.

    Raises:
        ValueError: the text is something else.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        death = fields.pop("death")
        if death is not None:
            death = Death(**{**death, "reason": DeadReason(death["reason"])})
        app, channel = fields.pop("queue")
        headers = {name: _rich(value) for name, value in fields.pop("headers").items()}
        return Envelope(
            queue=QueueName(app, channel), headers=headers, death=death, body=body, **fields
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"{text[:80]!r} is no task: {exc}") from exc


def _plain(header: str, value: object) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray():
            return {_TAG: "bytes", "value": base64.b64encode(value).decode()}
        case datetime():
            return {_TAG: "time", "value": value.isoformat()}
        case Decimal():
            return {_TAG: "decimal", "value": str(value)}
        case list() | tuple():
            return [_plain(header, item) for item in cast("list[object]", value)]
        case dict():
            items = cast("Mapping[object, object]", value).items()
            pairs = [[_plain(header, key), _plain(header, item)] for key, item in items]
            return {_TAG: "dict", "value": pairs}
        case _:
            kind = type(value).__name__
            raise EncodeError(f"header {header!r}: a {kind} cannot be kept in the hub's file")


def _rich(value: Any) -> object:
    if isinstance(value, list):
        return [_rich(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    tagged = cast("dict[str, Any]", value)
    kind, content = tagged[_TAG], tagged["value"]
    match kind:
        case "bytes":
            return base64.b64decode(content)
        case "time":
            return datetime.fromisoformat(content)
        case "decimal":
            return Decimal(content)
        case "dict":
            return {_rich(key): _rich(item) for key, item in content}
        case _:
            raise ValueError(f"unknown tag {kind!r}")
