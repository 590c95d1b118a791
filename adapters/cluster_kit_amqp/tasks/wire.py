"""An envelope as an AMQP message, and any AMQP message as an envelope.

The body is the payload alone; what else there is to know sits in properties and in headers that
begin with ``ck-``. Headers that begin with ``x-`` are the broker's and are never sent: RabbitMQ
3.10 drops a message that is published again with its old ``x-death``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from cluster_kit.clock import MAX_WAIT
from cluster_kit.errors import InvalidNameError
from cluster_kit.message import (
    MAX_RETRIES,
    RESERVED_HEADERS,
    ROUTING_HEADERS,
    DeadReason,
    Death,
    Envelope,
)
from cluster_kit.names import check_message_id, new_id
from cluster_kit_amqp.link import Incoming, Message
from cluster_kit_amqp.packed import Packed
from cluster_kit_amqp.tasks.plain import MAX_MS, plain_envelope, plain_headers

if TYPE_CHECKING:
    from cluster_kit.names import QueueName

MAX_ERROR_BYTES = 8192
"""Longest error text that travels, bytes: all headers must fit into one frame."""

MAX_HEADERS_BYTES = 96 * 1024
"""Most bytes of foreign headers that travel on; a frame has 128 KiB as a rule."""

_MAX_TEXT_BYTES = 255
_MAX_COUNT = 2**31 - 1
_REASONS = {reason.value: reason for reason in DeadReason}
_BROKER_REASONS = {
    "expired": DeadReason.EXPIRED,
    "delivery_limit": DeadReason.CRASHED,
    "rejected": DeadReason.REJECTED,
}


# --- to the broker ---------------------------------------------------------------------------


def to_message(
    envelope: Envelope, copy_id: str, app: str, expiration_ms: int | None = None
) -> Message:
    """Return the message of an envelope.

    Args:
        envelope: the task or dead letter.
        copy_id: identity of the stored copy, unlike that of any other.
        app: the publishing application.
        expiration_ms: for an undelayed task: when the broker is to expire it.
    """
    headers: Mapping[str, object] | None = plain_headers(envelope)
    if headers is None:
        headers = _headers(envelope)
    return Message(
        body=envelope.body,
        headers=headers,
        message_id=copy_id,
        content_type=_content_type(envelope.content_type),
        app_id=app,
        timestamp=envelope.published_at,
        expiration_ms=expiration_ms,
    )


@lru_cache(maxsize=256)
def _content_type(text: str | None) -> str | None:
    return _cut(text or "", _MAX_TEXT_BYTES) or None


def _headers(envelope: Envelope) -> Mapping[str, object]:
    headers = _fitting(user_headers(envelope.headers)) if envelope.headers else {}
    headers["ck-id"] = envelope.id
    headers["ck-attempt"] = envelope.attempt
    if envelope.max_retries is not None:
        headers["ck-max-retries"] = envelope.max_retries
    if envelope.timeout is not None:
        headers["ck-timeout-ms"] = _ms(envelope.timeout)
    if envelope.origin or envelope.crashes or envelope.expires_at is not None:  # as _NUMBERS wants
        headers["ck-origin"] = _cut(envelope.origin, _MAX_TEXT_BYTES)
    if envelope.expires_at is not None:
        headers["ck-expires-at"] = _ms(envelope.expires_at)
    if envelope.crashes:
        headers["ck-crashes"] = envelope.crashes
    if envelope.published_at is not None:
        headers["ck-published-at"] = _ms(envelope.published_at)
    if envelope.death is not None:
        headers.update(_death_headers(envelope.death))
    return headers


def _death_headers(death: Death) -> dict[str, object]:
    told: dict[str, object] = {
        "ck-reason": str(death.reason),
        "ck-error-type": _cut(death.error_type, _MAX_TEXT_BYTES),
        "ck-error-text": _cut(death.error_text, MAX_ERROR_BYTES),
        "ck-instance": _cut(death.instance_id, _MAX_TEXT_BYTES),
        "ck-died-at": None if death.died_at is None else _ms(death.died_at),
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _cut(text: str, limit: int) -> str:
    r"""Return `text` within `limit` bytes of UTF-8.

    >>> _cut("häuser", 2), _cut("lone surrogate \ud800", 99)
    ('h', 'lone surrogate ?')
    """
    if len(text) <= limit and text.isascii():
        return text
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def _fitting(headers: Mapping[str, object]) -> dict[str, object]:
    """Drop the largest foreign headers until the rest fits into a frame beside our own."""
    sizes = {name: _size(name) + _size(value) for name, value in headers.items()}
    total, kept = sum(sizes.values()), dict(headers)
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if total <= MAX_HEADERS_BYTES:
            break
        total -= sizes[name]
        del kept[name]
    return kept


def _size(value: object, depth: int = 0) -> int:
    """Return about how many bytes a header's value takes; generous where nested."""
    if isinstance(value, str | bytes | bytearray):
        return 5 + len(value.encode("utf-8", "replace") if isinstance(value, str) else value)
    if depth > 50:  # noqa: PLR2004 - nobody means that; let it count as too large
        return MAX_HEADERS_BYTES
    if isinstance(value, Mapping):
        table = cast("Mapping[str, object]", value)
        return 5 + sum(2 + 4 * len(name) + _size(item, depth + 1) for name, item in table.items())
    if isinstance(value, list):
        return 5 + sum(_size(item, depth + 1) for item in cast("list[object]", value))
    return 16


# --- from the broker -------------------------------------------------------------------------


def to_envelope(message: Message, queue: QueueName, *, dead: bool = False) -> Envelope:
    """Return what a message of `queue` says, whoever sent it. Never raises.

    Metadata that is malformed or out of bounds counts as missing.

    Args:
        message: as delivered.
        queue: where it came from.
        dead: whether it came from the queue's dead letters.

    >>> from cluster_kit.names import QueueName
    >>> foreign = Message(body=b"{}", headers={"ck-attempt": -1, "ck-id": "a b", "tenant": "x"})
    >>> envelope = to_envelope(foreign, QueueName("shop", "mails"))
    >>> envelope.attempt, envelope.headers, len(envelope.id)
    (1, {'tenant': 'x'}, 32)
    """
    headers = message.headers
    if type(headers) is Packed and not dead and (task := plain_envelope(headers, message, queue)):
        return task
    users: dict[str, object] = {}
    found = _given_id(message)
    envelope = Envelope(
        queue=queue,
        id=found or new_id(),
        id_is_stable=found is not None,
        body=message.body,
        content_type=message.content_type or None,
        published_at=message.timestamp,
        headers=users,
    )
    numbers = _NUMBERS if isinstance(headers.get("ck-origin"), str) else _NUMBERS_OF_OTHERS
    for name, value in headers.items():
        if name in numbers:
            attribute, least, most, unit = numbers[name]
            if type(value) is int and least <= value <= most:
                setattr(envelope, attribute, value if unit is None else value / unit)
        elif name == "ck-origin":
            envelope.origin = _cut(value, _MAX_TEXT_BYTES) if isinstance(value, str) else ""
        elif not name.startswith(RESERVED_HEADERS):
            users[name] = value
    if dead:
        envelope.death = _death(headers, queue)
    return envelope


_NUMBERS_OF_OTHERS = {
    "ck-attempt": ("attempt", 1, _MAX_COUNT, None),
    "ck-published-at": ("published_at", 0, MAX_MS, 1000),
    "ck-max-retries": ("max_retries", 0, MAX_RETRIES, None),
    "ck-timeout-ms": ("timeout", 1, int(MAX_WAIT * 1000), 1000),
}
"""What numbers in headers say: the attribute, its bounds as they travel, and their unit."""

_NUMBERS = _NUMBERS_OF_OTHERS | {
    "ck-expires-at": ("expires_at", 0, MAX_MS, 1000),
    "ck-crashes": ("crashes", 0, _MAX_COUNT, None),
}
"""As above, beside a ``ck-origin``, which may be empty."""


def redeliveries(incoming: Incoming) -> int:
    """Return how many deliveries of this copy ended without an outcome.

    A first delivery counts 0 whatever a publisher may have put into the broker's header. Up to
    4.2 the broker counts every return; the flag alone tells of one. From 4.3 on it counts those
    that look like a crash, and all: a publisher's count, there until the first, may exceed all.

    >>> message = Message(body=b"", headers={"x-delivery-count": 9})
    >>> redeliveries(Incoming(message=message, tag=1, redelivered=True))
    9
    """
    if not incoming.redelivered:
        return 0
    headers = incoming.message.headers
    crashed = _whole(headers, "x-delivery-count", 0, _MAX_COUNT)
    returned = _whole(headers, "x-acquired-count", 0, _MAX_COUNT)
    if returned is None:
        return 1 if crashed is None else crashed
    return crashed if crashed is not None and crashed <= returned else 0


def user_headers(headers: Mapping[str, object]) -> dict[str, object]:
    """Return the headers that are neither the library's nor the broker's."""
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith(RESERVED_HEADERS) and name not in ROUTING_HEADERS
    }


def _given_id(message: Message) -> str | None:
    """Return the first legal id: the library's, or AMQP's; None when there is none."""
    for candidate in (message.headers.get("ck-id"), message.message_id):
        try:
            return check_message_id(candidate)
        except InvalidNameError:
            continue
    return None


def _whole(headers: Mapping[str, object], name: str, least: int, most: int) -> int | None:
    value = headers.get(name)
    if value is None or isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if least <= value <= most else None


def _text(headers: Mapping[str, object], name: str, limit: int) -> str:
    value = headers.get(name)
    return _cut(value, limit) if isinstance(value, str) else ""


# --- dead letters ----------------------------------------------------------------------------


def _death(headers: Mapping[str, object], queue: QueueName) -> Death:
    """Return how a dead letter ended.

    What this library buries says so in ``ck-`` headers and has no ``x-death``, for that is never
    published; what the broker dead-lettered has it, below whatever its publisher may have sent.
    """
    if "x-death" in headers or "x-first-death-reason" in headers:
        return _broker_death(headers, queue)
    died_ms = _whole(headers, "ck-died-at", 0, MAX_MS)
    return Death(
        reason=_reason(headers),
        error_type=_text(headers, "ck-error-type", _MAX_TEXT_BYTES),
        error_text=_text(headers, "ck-error-text", MAX_ERROR_BYTES),
        instance_id=_text(headers, "ck-instance", _MAX_TEXT_BYTES),
        died_at=None if died_ms is None else died_ms / 1000,
    )


def _reason(headers: Mapping[str, object]) -> DeadReason:
    value = headers.get("ck-reason")
    known = _REASONS.get(value) if isinstance(value, str) else None
    return known or DeadReason.FAILED


def _broker_death(headers: Mapping[str, object], queue: QueueName) -> Death:
    """Read ``x-death``: of its entries, that of the work queue. The others tell of its waits."""
    entry = _death_entry(headers.get("x-death"), queue)
    reason = entry.get("reason") or headers.get("x-last-death-reason")
    reason = reason or headers.get("x-first-death-reason")
    time = entry.get("time")
    known = _BROKER_REASONS.get(reason) if isinstance(reason, str) else None
    return Death(
        reason=known or DeadReason.FAILED,
        error_text="" if known else _cut(f"dead-lettered by the broker: {reason}", MAX_ERROR_BYTES),
        died_at=time.timestamp() if isinstance(time, datetime) else None,
    )


def _death_entry(deaths: object, queue: QueueName) -> Mapping[str, object]:
    if not isinstance(deaths, Sequence) or isinstance(deaths, str | bytes | bytearray):
        return {}
    entries = [
        cast("Mapping[str, object]", entry)
        for entry in cast("Sequence[object]", deaths)
        if isinstance(entry, Mapping)
    ]
    own = [entry for entry in entries if entry.get("queue") == queue.full]
    return (own or entries or [{}])[0]
