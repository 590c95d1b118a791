"""Between this process and the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.urls import redact_url

if TYPE_CHECKING:
    from collections.abc import Mapping


class TransportError(ClusterKitError):
    """Between this process and the broker."""

    retryable = True


class ConnectError(TransportError):
    """The first connection failed. `url` is redacted; `retryable` tells whether waiting helps."""

    url: str
    reason: str

    def __init__(self, url: str, reason: str, *, retryable: bool = True) -> None:
        self.url, self.reason = redact_url(url), redact_url(reason)
        # An instance, not the class, knows: a wrong password stays wrong, a closed port may open.
        self.retryable = retryable
        super().__init__(f"cannot connect to {self.url}: {self.reason}")


class ConnectionLost(TransportError):  # noqa: N818 - the name is the contract's
    """There was no usable connection within the deadline, so nothing was sent."""


class PublishRefused(TransportError):  # noqa: N818 - the name is the contract's
    """The broker refused the message (queue full, alarm, size); it is not stored.

    `sent` is False where it is certain that nothing of the message has left this process.
    """

    sent: bool = True


class PublishBlocked(PublishRefused):
    """The broker takes no message from anybody now: an alarm of memory or disk lasts.

    It says nothing about this message, of which nothing was sent.
    """

    sent: bool = False


class Unroutable(TransportError):  # noqa: N818 - the name is the contract's
    """No queue took the message; it is not stored."""


class PublishUnconfirmed(TransportError):  # noqa: N818 - the name is the contract's
    """The outcome is unknown: the message was sent and no answer came within the deadline.

    Publishing again under the same `message_id` may store it twice and never loses it.
    """

    message_id: str
    reason: str

    def __init__(self, message_id: str, reason: str) -> None:
        self.message_id, self.reason = message_id, redact_url(reason)
        super().__init__(f"message {message_id} may or may not be stored: {self.reason}")


class PublishManyError(TransportError):
    """A batch of which a part was not confirmed.

    `confirmed` has the ids of stored messages in order, `failed` maps the others to their error.
    """

    confirmed: list[str]
    failed: dict[str, Exception]

    def __init__(self, confirmed: list[str], failed: Mapping[str, Exception]) -> None:
        self.confirmed, self.failed = confirmed, dict(failed)
        first = next(iter(self.failed.values()))
        super().__init__(
            f"{len(confirmed)} messages confirmed, {len(failed)} not; the first failure: "
            f"{type(first).__name__}: {first}"
        )
