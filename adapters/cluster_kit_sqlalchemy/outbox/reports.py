"""What an outbox tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster_kit.clock import utc
from cluster_kit_sqlalchemy.outbox.entries import Entry, number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cluster_kit_sqlalchemy.outbox.entries import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStats:
    """How an outbox is.

    Attributes:
        pending: messages to be sent, counted now in the database.
        failed: messages given up, counted now in the database.
        oldest: seconds since the oldest pending one was published; None without any.
        sent: messages this instance has sent.
        refused: attempts of this instance that failed.
        lag: seconds from the publishing to the sending of what this instance sent last; None
            before it.
    """

    pending: int
    failed: int
    oldest: float | None
    sent: int
    refused: int
    lag: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedMessage:
    """A message the relay has given up. It stays until it is replayed or discarded.

    Attributes:
        id: message id.
        kind: ``task``, ``sync`` or ``pubsub``.
        channel: name without prefix.
        key: what it was ordered with.
        body: as it would have travelled.
        attempts: that were refused.
        unconfirmed: whether an attempt got no answer: it may have arrived all the same.
        error: of the last attempt.
        published_at: aware UTC time.
        failed_at: aware UTC time.
    """

    id: str
    kind: Kind
    channel: str
    key: str
    body: bytes
    attempts: int
    unconfirmed: bool
    error: str
    published_at: datetime
    failed_at: datetime

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> FailedMessage:
        """Return the message of a row, whoever wrote it. Never raises."""
        entry, body = Entry.of(row), row["body"]
        return cls(
            id=entry.id,
            kind=entry.kind,
            channel=entry.channel,
            key=entry.key,
            body=body if isinstance(body, bytes) else str(body).encode(),
            attempts=entry.attempts,
            unconfirmed=entry.unconfirmed,
            error=str(row["error"] or ""),
            published_at=utc(entry.created_at),
            failed_at=utc(number(row["failed_at"]) or entry.created_at),
        )
