"""Broadcasts: every instance gets every message."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from cluster_kit.ports.context import AdapterContext

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding, Broadcast, Transport
    from cluster_kit.ports.context import Health


class Listener(Protocol):
    """The service, as an adapter sees it. Both calls return at once and never raise."""

    def received(self, message: Broadcast) -> None:
        """Take a message that arrived.

        To be called once for each stored message, however many bindings match it, in the order
        in which it was stored as far as publisher and channel are the same. A message that is
        handed over is done: the service keeps what it needs. It passes over messages that no
        binding asked for, and over one that it had before.
        """
        ...

    def gap(self, bindings: Collection[Binding], since: float, reason: str) -> None:
        """Hear that messages of these bindings may be missing, sent after `since`.

        To be called once they are live again, before anything received after the gap is handed
        over. `since` is in seconds since 1970, `reason` is for people.
        """
        ...


class PubSubAdapter(Protocol):
    """Carries broadcasts between the instances of one application.

    Three transports, chosen for each message by its publisher:

    ============= ===================================== ================================
    transport     while this instance is cut off        gap is told
    ============= ===================================== ================================
    ``ephemeral`` messages pass it by                   after every loss of the link
    ``sticky``    messages are kept for this instance   when what was kept is incomplete
    ``stream``    messages are kept for everybody       when what was kept is incomplete
    ============= ===================================== ================================

    A binding sees the messages of its transport alone. An adapter that knows one transport only
    may use it for all three, if it promises no less.

    Every method that touches the broker raises errors of `cluster_kit.errors` only.
    """

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        From then on the adapter keeps itself connected until `close`.

        Raises:
            ConnectError: unreachable, refused, or not what it should be.
        """
        ...

    async def close(self) -> None:
        """Close everything; nothing is handed over any more. Idempotent, legal before `connect`.

        Publishes under way end with an error.
        """
        ...

    def listen(self, realm: str, listener: Listener) -> None:
        """Hand everything of `realm` to `listener`. Called once for each realm, before `bind`."""
        ...

    async def publish(self, message: Broadcast, *, transport: Transport, timeout: float) -> None:
        """Send a message to everybody who is bound to it; return when the broker has it.

        Messages are stored in the order of the calls, as far as realm, channel and transport are
        the same; no receiver is needed. Survives a reconnect by publishing again, which may store
        it, and those after it, twice.

        Raises:
            ConnectionLost: `timeout` seconds passed without a connection; nothing was sent.
            PublishRefused: the broker said no; its `sent` is False if nothing was sent.
            NeverSent: it was cancelled before anything was sent.
            PublishUnconfirmed: `timeout` passed after it was sent; it may be stored.
            TopologyError: what leads to the receivers is not as it should be.
        """
        ...

    async def bind(self, binding: Binding) -> None:
        """Receive what `binding` describes, from the return of this call on. Idempotent.

        While the link is away it returns at once; the binding is then live, and a gap told, once
        the link is back.

        Raises:
            TopologyError: something on the broker is not as it should be; it is not bound.
        """
        ...

    async def unbind(self, binding: Binding) -> None:
        """Receive it no longer. Idempotent; legal while the link is away."""
        ...

    def linked_since(self, binding: Binding) -> float | None:
        """Return since when what `binding` describes comes and may be sent, as known now.

        Seconds since 1970: another value after each loss of the link, however short, by which
        whoever did not look meanwhile learns of it, and the same value in between. None while it
        is not so, and before `bind`. What is wrong with other bindings changes nothing.
        """
        ...

    def can_publish(self) -> bool:
        """Return whether `publish` need not wait for the link, as known now."""
        ...

    def health(self) -> Health:
        """Return the state as known now, without asking the broker."""
        ...


PubSubFactory = Callable[[str, AdapterContext], PubSubAdapter]
"""Makes an adapter from its URL. Raises `UnknownOptionError` for query options it does not know."""
