"""The seams between this adapter and what declares, and what asks, for it.

What lies below may be replaced without touching what lies above; for messages there is the seam of
`cluster_kit_amqp.link`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from cluster_kit_amqp.link import ChannelDown, Incoming, Message, QueueCounts

if TYPE_CHECKING:
    from cluster_kit_amqp.topology import Step

ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406


class OwnLink(Protocol):
    """A connection beside those that carry tasks."""

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        ...

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes on this link now; None when it does."""
        ...

    async def close(self) -> None:
        """Close it in good order. Never raises `LinkError`, bounded in time."""
        ...


class MakingChannel(Protocol):
    """One channel for declarations.

    Every call raises `LinkDown` or `ChannelDown`; a call that is refused by the broker ends the
    channel.
    """

    def make(self, step: Step, *, passive: bool = False) -> Awaitable[object]:
        """Make what `step` says, or compare with what there is; only look when `passive`.

        It is sent at once, and what is returned waits for the answer. Those of several come in
        their order; behind one that is refused nothing is made.
        """
        ...

    def publish(self, exchange: str, key: str, message: Message) -> Awaitable[None]:
        """As `link.Channel.publish`."""
        ...


class MakingLink(OwnLink, Protocol):
    """A connection for declarations."""

    def channel(self, *, confirms: bool = False) -> AbstractAsyncContextManager[MakingChannel]:
        """Open a channel that is closed with the context."""
        ...


class ControlChannel(Protocol):
    """One channel for questions.

    Every call raises `LinkDown` or `ChannelDown`; a call that is refused by the broker ends the
    channel, and so does one that is cancelled.
    """

    async def declare_exclusive(self, name: str) -> None:
        """Make a queue only this link may use and that goes with it."""
        ...

    async def check_queue(self, name: str) -> QueueCounts:
        """Return a queue's counts, or raise `ChannelDown` with code 404."""
        ...

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all in it."""
        ...

    async def purge(self, queue: str) -> int:
        """Drop the ready messages and return how many."""
        ...

    async def get(self, queue: str) -> Incoming | None:
        """Take one message, or return None when none is ready."""
        ...

    async def ack(self, tag: int) -> None:
        """Settle a message that was taken; returns when the bytes have left."""
        ...

    async def requeue(self, tag: int, *, multiple: bool = False) -> None:
        """Return a message, with `multiple` all unsettled ones up to it; as `ack`."""
        ...


class ControlLink(OwnLink, Protocol):
    """A connection for questions."""

    def channel(self) -> AbstractAsyncContextManager[ControlChannel]:
        """Open a channel that is closed with the context."""
        ...


async def counts(link: ControlLink, queue: str) -> QueueCounts | None:
    """Return a queue's counts, asked on a channel of its own; None when there is no such queue.

    Raises:
        LinkError: it cannot be told.
    """
    async with link.channel() as channel:
        try:
            return await channel.check_queue(queue)
        except ChannelDown as exc:
            if exc.code != NOT_FOUND:
                raise
            return None
