"""Publish and subscribe of an instance, on a hub it may share with others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.broadcast import NeverSent
from cluster_kit.errors import ConnectionLost
from cluster_kit.ports import Health
from cluster_kit_memory.exchange import EXCHANGES, Exchange, Member
from cluster_kit_memory.options import parse_url

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster_kit.broadcast import Binding, Broadcast, Transport
    from cluster_kit.ports import AdapterContext, Listener

_ADAPTER = "memory"
_PURPOSE = "pubsub"


class MemoryPubSub:
    """A `PubSubAdapter` on a hub of this process.

    Adapters that are connected to one hub are instances of one cluster. `disconnect` and
    `reconnect` stand for a link that breaks; in between, a sticky or stream message is kept for
    this instance, an ephemeral one passes it by, which it is told as a gap.

    Args:
        url: see `cluster_kit_memory.options`; its ``path`` concerns the event queue only.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._options = parse_url(url)
        self._context = context
        self._listeners: dict[str, Listener] = {}
        self._member = Member(context.app, self)
        self._exchange: Exchange | None = None
        self._linked = asyncio.Event()
        self._in_turn = asyncio.Lock()
        self._since = context.clock.wall()

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Join the hub.

        Raises:
            ConnectError: the hub belongs to another event loop.
        """
        if self._exchange is None:
            self._exchange = EXCHANGES.enter(self._options, self._member)
            self.reconnect()

    async def close(self) -> None:
        """Leave the hub. Publishers that wait for the link get `ConnectionLost`."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        EXCHANGES.leave(exchange, self._member)
        self._listeners.clear()
        self._since = self._context.clock.wall()
        self._linked.set()  # publishers that wait for the link find the hub gone
        await asyncio.sleep(0)
        self._linked.clear()

    def disconnect(self, reason: str = "cut by a test") -> None:
        """Break the link of this instance, as when its connection to a broker is lost.

        Publishing waits for `reconnect`. Idempotent.
        """
        if self._linked.is_set():
            self._linked.clear()
            self._since = self._context.clock.wall()
            self._member.cut()
            self._context.emit("connection.lost", adapter=_ADAPTER, purpose=_PURPOSE, reason=reason)

    def reconnect(self) -> None:
        """Mend the link: gaps are told, what was kept is handed over. Idempotent.

        Raises:
            ConnectionLost: the adapter is not connected to its hub.
        """
        self._hub()
        if not self._linked.is_set():
            self._linked.set()
            self._context.emit(
                "connection.up", adapter=_ADAPTER, purpose=_PURPOSE, url=self._options.url
            )
            self._member.mend()
            self._since = self._context.clock.wall()

    def forget(self) -> None:
        """Drop what is kept for this instance, as a broker does after its retention."""
        self._member.forget()

    def health(self) -> Health:
        """Return `down` without a link, else `ok`."""
        hub = f"hub {self._options.hub!r}"
        if not self.can_publish():
            return Health(status="down", detail=f"not connected to {hub}", since=self._since)
        return Health(status="ok", detail=hub, since=self._since)

    # --- messages --------------------------------------------------------------------------------

    def listen(self, realm: str, listener: Listener) -> None:
        """Hand everything of `realm` to `listener`."""
        self._listeners[realm] = listener

    async def publish(self, message: Broadcast, *, transport: Transport, timeout: float) -> None:
        """Send a message; on return every instance that is linked has it.

        Raises:
            ConnectionLost: not connected, or the link stayed broken for `timeout` seconds.
            NeverSent: it was cancelled while the link was broken.
        """
        try:
            async with asyncio.timeout(timeout), self._in_turn:  # waiting ones keep their order
                if self._exchange is not None:
                    await self._linked.wait()
                self._hub().publish(self._context.app, message, transport)
        except TimeoutError:
            raise ConnectionLost(f"no connection to the hub for {timeout:g} s") from None
        except asyncio.CancelledError as exc:
            raise NeverSent(*exc.args) from None
        await asyncio.sleep(0)  # a broker's answer takes time, in which handlers run

    async def bind(self, binding: Binding) -> None:
        """Receive what `binding` describes; after `reconnect` while the link is broken."""
        self._member.bind(binding)

    async def unbind(self, binding: Binding) -> None:
        """Receive it no longer."""
        self._member.unbind(binding)

    def linked_since(self, binding: Binding) -> float | None:
        """Return since when the link works."""
        return self._since if self.can_publish() and self._member.has(binding) else None

    def can_publish(self) -> bool:
        """Return whether the link works."""
        return self._exchange is not None and self._linked.is_set()

    # --- from the exchange -----------------------------------------------------------------------

    def hand_over(self, message: Broadcast) -> None:
        """Give a message to the service it belongs to."""
        listener = self._listeners.get(message.realm)
        if listener is not None:
            listener.received(message)

    def tell_gap(self, bindings: Collection[Binding]) -> None:
        """Tell each service of what is missing."""
        for realm, listener in self._listeners.items():
            concerned = [binding for binding in bindings if binding.realm == realm]
            if concerned:
                listener.gap(concerned, self._since, "the link to the hub was broken")

    def _hub(self) -> Exchange:
        if self._exchange is None:
            raise ConnectionLost(f"not connected to hub {self._options.hub!r}")
        return self._exchange
