"""The seam between this adapter and what speaks AMQP 0-9-1 for it, where messages pass.

Everything above speaks of links, channels and messages as described here. What lies below may be
replaced without touching it; nothing above imports a driver. What concerns the topology, and all
that is only asked, has seams of its own: `cluster_kit_amqp.control.seam`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from cluster_kit_amqp.server import Server

# --- values ----------------------------------------------------------------------------------


@dataclass(slots=True)  # not frozen, here and below: that triples the cost
class Message:
    """Body and properties of a message, those this library uses. Not changed once made.

    `timestamp` is in seconds since 1970 and travels in whole seconds; `expiration_ms` makes the
    broker expire the message in its queue; what is not `persistent` may go with the broker.
    """

    body: bytes
    headers: Mapping[str, object] = field(default_factory=dict[str, object])
    message_id: str | None = None
    content_type: str | None = None
    app_id: str | None = None
    timestamp: float | None = None
    expiration_ms: int | None = None
    persistent: bool = True


@dataclass(slots=True)
class Incoming:
    """A delivered message. `tag` settles it, on the channel it came through.

    `exchange` and `key` are what it was published with, where its consumer asked for that.
    """

    message: Message
    tag: int
    redelivered: bool
    exchange: str = ""
    key: str = ""


class QueueCounts(NamedTuple):
    """What a passive declaration tells of a queue."""

    ready: int
    consumers: int


# --- errors ----------------------------------------------------------------------------------

_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530
# The broker's own words: names of users and virtual hosts, which stand beside them, may be any.
_REACHED = r"\blimit (?:(?:\(\d+\) )?is reached|of \(?\d)"
_TEMPORARY = re.compile(rf"{_REACHED}|' is down\b|\bshutting down\b", re.IGNORECASE)
_LIMIT = re.compile(rf"\b{_NOT_ALLOWED} .*{_REACHED}", re.DOTALL)


class LinkError(Exception):
    """Base of what goes wrong at the seam. Never leaves the adapter.

    `sent` tells of a publish that failed whether its bytes may have left.
    """

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        self.reason, self.sent = reason, sent
        super().__init__(reason)

    @property
    def by_limit(self) -> bool:
        """Whether a user, virtual host or node may have no more connections or channels."""
        return _LIMIT.search(self.reason) is not None


class DialFailed(LinkError):  # noqa: N818 - an event, like its siblings
    """No link could be made. `retryable` tells whether waiting may help."""

    def __init__(self, reason: str, *, retryable: bool = True) -> None:
        super().__init__(reason, sent=False)
        self.retryable = retryable

    @classmethod
    def by_broker(cls, code: int, text: str) -> Self:
        """Return the error for a broker that closed the connection before it was open."""
        lasting = code in {_ACCESS_REFUSED, _NOT_ALLOWED} and not _TEMPORARY.search(text)
        return cls(f"{code} {text}", retryable=not lasting)


class LinkDown(LinkError):  # noqa: N818
    """The connection is gone, and every channel with it."""


class ChannelDown(LinkError):  # noqa: N818
    """The channel is gone. `code` is AMQP's reply code, 0 when it was not the broker's doing."""

    def __init__(self, code: int, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason, sent=sent)
        self.code = code


class Returned(LinkError):  # noqa: N818
    """No queue took the published message."""


class Nacked(LinkError):  # noqa: N818
    """The broker did not take the published message."""


class Refused(LinkError):  # noqa: N818
    """The broker refused such a publish a moment ago; this one was not sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, sent=False)


class Unencodable(LinkError):  # noqa: N818
    """The message cannot be put on the wire; nothing was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, sent=False)


class Unsent(asyncio.CancelledError):
    """A publish was cancelled before anything of it was sent."""


NO_ARGUMENTS: Mapping[str, object] = MappingProxyType({})

# --- the seam --------------------------------------------------------------------------------


class Channel(Protocol):
    """One channel of a link.

    Every call raises `LinkDown` or `ChannelDown`; a call that is refused by the broker ends the
    channel. A cancelled call ends it too, except `publish`.
    """

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        ...

    def on_closed(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` once when the channel has ended, whoever ended it."""
        ...

    async def check_queue(self, name: str) -> QueueCounts:
        """Return a queue's counts, or raise `ChannelDown` with code 404."""
        ...

    async def declare_queue(
        self, name: str, arguments: Mapping[str, object], *, exclusive: bool = False
    ) -> QueueCounts:
        """Make a queue, or compare with the one there is.

        It is durable; with `exclusive` only this link may use it, and it goes with the link.
        """
        ...

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all in it; one that is not there is no error."""
        ...

    def bind_queue(self, queue: str, exchange: str, key: str) -> Awaitable[object]:
        """Let `exchange` route `key` to `queue`.

        It is sent at once, and what is returned waits for the answer. Those of several come in
        their order; behind one that is refused nothing is done.
        """
        ...

    def unbind_queue(self, queue: str, exchange: str, key: str) -> Awaitable[object]:
        """Undo `bind_queue`, in the same way; what is not bound is no error."""
        ...

    def send(self, exchange: str, key: str, message: Message) -> asyncio.Future[None]:
        """Publish behind whatever was published before, mandatory not; return the confirm to come.

        It waits for no room: the caller bounds what is under way. The channel must have been
        opened with confirms. The future has `Nacked`, `LinkDown` or `ChannelDown` when it fails.

        Raises:
            Unencodable: it cannot travel.
        """
        ...

    def publish(self, exchange: str, key: str, message: Message) -> Awaitable[None]:
        """Publish mandatory and persistent; what is returned waits until the broker has confirmed.

        The channel must have been opened with confirms. Errors may come from either.

        Raises:
            Returned: no queue took it.
            Nacked: the broker refused it.
            Unencodable: it cannot travel.
        """
        ...

    async def consume(
        self,
        queue: str,
        *,
        prefetch: int,
        on_message: Callable[[str, Incoming], None],
        on_cancelled: Callable[[str], None],
        arguments: Mapping[str, object] = NO_ARGUMENTS,
        routed: bool = False,
    ) -> str:
        """Start a consumer and return its tag.

        `on_message(tag, incoming)` is called for every delivery in order; `on_cancelled(tag)`
        when the broker ends the consumer. With `routed` deliveries tell exchange and routing key.
        """
        ...

    async def cancel(self, tag: str) -> None:
        """End a consumer. When this returns no delivery of it comes any more."""
        ...

    async def cancel_returning(self, consumer: str, tag: int) -> None:
        """End a consumer and, behind that, return its delivery in a way every broker counts."""
        ...

    def ack(self, tag: int) -> None:
        """Settle a delivery. It leaves with what else is sent in this turn of the event loop."""
        ...

    def requeue(self, tag: int, *, multiple: bool = False) -> None:
        """Return a delivery, with `multiple` all unsettled ones up to it; as `ack`."""
        ...

    async def close(self) -> None:
        """Close it. Never raises `LinkError`, bounded in time."""
        ...


class Link(Protocol):
    """One connection to one broker, from its opening to its loss."""

    @property
    def server(self) -> Server:
        """What the broker says of itself."""
        ...

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        ...

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes on this link now; None when it does."""
        ...

    @property
    def silence(self) -> float:
        """Seconds since the broker was heard last; it does not grow once the link is lost."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when `lost` or `blocked` changes. It must not raise."""
        ...

    def channel(self, *, confirms: bool = False) -> AbstractAsyncContextManager[Channel]:
        """Open a channel that is closed with the context."""
        ...

    async def open_channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel that the caller closes."""
        ...

    async def close(self) -> None:
        """Close it in good order. Never raises `LinkError`, bounded in time."""
        ...
