"""Publish and subscribe on RabbitMQ: puts the parts together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from cluster_kit.broadcast import TRANSPORTS
from cluster_kit.errors import ConnectionLost, TopologyError
from cluster_kit_amqp.broadcast.attachment import Attachment
from cluster_kit_amqp.broadcast.context import AttachmentContext
from cluster_kit_amqp.broadcast.names import exchange_name
from cluster_kit_amqp.broadcast.publisher import Broadcaster
from cluster_kit_amqp.broadcast.queues import EphemeralQueue, StickyQueue
from cluster_kit_amqp.broadcast.streams import Stream
from cluster_kit_amqp.broadcast.wire import to_broadcast
from cluster_kit_amqp.connection.together import Connections

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding, Broadcast, Transport
    from cluster_kit.ports import AdapterContext, Health, Listener
    from cluster_kit_amqp.broadcast.source import Source
    from cluster_kit_amqp.link import Incoming


class AmqpPubSub:
    """Implements `cluster_kit.ports.PubSubAdapter`.

    An instance has a queue of its own for each of `ephemeral` and `sticky`, once something is
    bound there, and reads the stream of each realm in which it has `stream` bindings.

    Args:
        url: see `cluster_kit_amqp.options`.
        context: of the port.

    Raises:
        UnknownOptionError: the URL has an option nothing reads.
        ConfigurationError: the URL is wrong otherwise, or a certificate file is.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._context = context
        self._connections = Connections(
            url, context, publish="pubsub publish", consume="pubsub consume"
        )
        self._problems = self._connections.problems
        self._broadcaster = Broadcaster(
            self._connections.publishing, self._connections.declarer(), context
        )
        self._declarer = self._connections.declarer()
        self._attachment_context = AttachmentContext(
            connection=self._connections.consuming,
            context=context,
            problems=self._problems,
            hand_over=self._hand_over,
            tell_gap=self._tell_gap,
        )
        self._listeners: dict[str, Listener] = {}
        self._realms: dict[str, str] = {}
        self._attachments: dict[str, Attachment] = {}
        self._receives = False  # nothing is attached from the beginning of `close` on

    # --- life --------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        Raises:
            ConnectError: no host could be used.
        """
        await self._connections.open()
        self._receives = True

    async def close(self) -> None:
        """Close what is received and sent, then connections. Idempotent, legal before `connect`."""
        self._receives = False
        self._listeners.clear()
        self._broadcaster.stop()
        attachments, self._attachments = self._attachments, {}
        closing = {
            self._context.tasks.spawn(attachment.close(), name="amqp broadcasts close")
            for attachment in attachments.values()
        }
        if closing:
            await asyncio.wait(closing)
        await self._connections.close()
        self._broadcaster.close()

    def health(self) -> Health:
        """Return the state as known now."""
        return self._connections.health()

    # --- sending -----------------------------------------------------------------------------

    async def publish(self, message: Broadcast, *, transport: Transport, timeout: float) -> None:
        """Send a message; return when the broker has it, on a transport that keeps it: stored.

        Raises:
            ConnectionLost: nothing was sent within `timeout` seconds.
            PublishRefused: the broker said no; `PublishBlocked` when it blocks publishers.
            PublishUnconfirmed: it was sent and not answered.
            TopologyError: exchange or stream are there with other arguments, or missing where
                this adapter may not make them.
        """
        if not self._connections.is_open:
            raise ConnectionLost("the adapter is not connected")
        part = f"publishing {message.realm} broadcasts ({transport})"
        try:
            await self._broadcaster.publish(message, transport, timeout)
        except TopologyError as exc:  # in health until one is stored
            self._problems.report(part, "degraded", f"{part} fails: {exc}")
            raise
        self._problems.clear(part)

    # --- receiving ---------------------------------------------------------------------------

    def listen(self, realm: str, listener: Listener) -> None:
        """Hand everything of `realm` to `listener`."""
        self._listeners[realm] = listener
        for transport in TRANSPORTS:
            self._realms[exchange_name(self._context.app, realm, transport)] = realm

    async def bind(self, binding: Binding) -> None:
        """Receive what `binding` describes; later, after a gap, where the link is away.

        Raises:
            TopologyError: the broker will not.
        """
        if self._receives:
            await self._attachment(binding).bind(binding)

    async def unbind(self, binding: Binding) -> None:
        """Receive it no longer."""
        attachment = self._attachments.get(_label(binding))
        if attachment is not None:
            await attachment.unbind(binding)

    def linked_since(self, binding: Binding) -> float | None:
        """Return since when it comes, and both connections work."""
        attachment = self._attachments.get(_label(binding))
        attached = None if attachment is None else attachment.live_since(binding)
        connected = self._connections.linked_since
        return None if attached is None or connected is None else max(attached, connected)

    def can_publish(self) -> bool:
        """Return whether the connection that publishes works, and the broker lets it."""
        return self._connections.can_publish

    def _attachment(self, binding: Binding) -> Attachment:
        label = _label(binding)
        found = self._attachments.get(label)
        if found is None:
            source = self._source(binding)
            found = self._attachments[label] = Attachment(label, source, self._attachment_context)
        return found

    def _source(self, binding: Binding) -> Source:
        make: dict[Transport, Callable[[], Source]] = {
            "ephemeral": lambda: EphemeralQueue(self._declarer, self._context),
            "sticky": lambda: StickyQueue(self._declarer, self._context),
            "stream": lambda: Stream(binding.realm, self._declarer, self._context),
        }
        return make[binding.transport]()

    def _hand_over(self, incoming: Incoming) -> None:
        realm = self._realms.get(incoming.exchange, "")
        listener = self._listeners.get(realm)
        if listener is not None:
            listener.received(to_broadcast(incoming, realm))

    def _tell_gap(self, bindings: Collection[Binding], since: float, reason: str) -> None:
        for realm, listener in self._listeners.items():
            concerned = [binding for binding in bindings if binding.realm == realm]
            if concerned:
                listener.gap(concerned, since, reason)


def _label(binding: Binding) -> str:
    """Return what shares a source: queues serve all realms, a stream one."""
    return f"stream of {binding.realm}" if binding.transport == "stream" else binding.transport
