"""What cannot travel, and what runs too long."""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.urls import redact_url


class MessageError(ClusterKitError):
    """A payload or header that cannot travel."""


class EncodeError(MessageError, ValueError):
    """The payload or a header cannot be encoded; the text names the place."""


class DecodeError(MessageError, ValueError):
    """The body of a received message cannot be decoded."""


class MessageTooLargeError(MessageError, ValueError):
    """Over a size limit. Both sizes are in bytes."""

    size_bytes: int
    limit_bytes: int

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(f"{what} has {size_bytes} bytes, the limit is {limit_bytes}")


class HandlerTimeout(ClusterKitError, TimeoutError):  # noqa: N818 - reads as what happened
    """A handler ran longer than its timeout (seconds); the attempt has failed."""

    retryable = True
    timeout: float

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        super().__init__(f"the handler ran longer than {timeout:g} s")


class CommitUnconfirmed(ClusterKitError):  # noqa: N818 - as `PublishUnconfirmed`
    """Whether the transaction of a message was committed is not known, so it was not sent.

    The commit was cancelled, or the connection lost before the database had answered.
    """

    message_id: str
    reason: str

    def __init__(self, message_id: str, reason: str) -> None:
        self.message_id = message_id
        self.reason = redact_url(reason).removesuffix(": ")  # of an error that has no text
        text = f"whether the transaction of message {message_id} was committed is not known"
        super().__init__(f"{text}: {self.reason}")
