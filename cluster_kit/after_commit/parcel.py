"""A message that waits for a commit, and what is told when it could not be sent after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from cluster_kit.codec import JsonCodec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Kind = Literal["task", "sync", "cache"]
"""What a message is: a task of the event queue, a sync message, an invalidation of a cache."""


class Parcel(NamedTuple):
    """A message, checked and encoded. `send` publishes it; it may be called again."""

    kind: Kind
    channel: str
    id: str
    body: bytes
    send: Callable[[], Awaitable[object]]


class Pending(NamedTuple):
    """A parcel as what waits for a transaction: a `Waiting` of the port.

    Args:
        parcel: the message.
        commit: takes it once the transaction is committed.
        doubt: takes it, with the reason, when nobody can tell whether it is.
    """

    parcel: Parcel
    commit: Callable[[Parcel], None]
    doubt: Callable[[Parcel, str], None]

    def committed(self) -> None:
        """As `Waiting.committed`."""
        self.commit(self.parcel)

    def in_doubt(self, why: str) -> None:
        """As `Waiting.in_doubt`."""
        self.doubt(self.parcel, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailure:
    """A message whose transaction was committed, and which could not be published.

    Or nobody knows whether it was committed: then `error` is a `CommitUnconfirmed`, and nothing
    was sent. Look whether the database has the data before you repeat it.

    Attributes:
        kind: ``task``, ``sync`` or ``cache``.
        channel: name without prefix, or that of the cache.
        id: of the message, as `publish` returned it.
        body: the payload as it travels, JSON.
        error: why; with `PublishUnconfirmed` it may have arrived all the same.
    """

    kind: Kind
    channel: str
    id: str
    body: bytes
    error: Exception
    _send: Callable[[], Awaitable[object]]

    @classmethod
    def of(cls, parcel: Parcel, error: Exception) -> PublishFailure:
        """Return what there is to tell about `parcel`."""
        return cls(
            kind=parcel.kind,
            channel=parcel.channel,
            id=parcel.id,
            body=parcel.body,
            error=error,
            _send=parcel.send,
        )

    @property
    def payload(self) -> object:
        """The payload, decoded."""
        return JsonCodec().decode(self.body)

    async def repeat(self) -> None:
        """Publish it again, under the same id and with the same options.

        Raises:
            ClusterKitError: as the `publish` it came from.
        """
        await self._send()
