"""The broadcast side of a hub: hands every message to every member that is bound to it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cluster_kit.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster_kit.broadcast import Binding, Broadcast, Transport
    from cluster_kit_memory.options import MemoryOptions

MOST_KEPT = 10_000
"""Messages kept for a member that is cut off; beyond them the oldest go, which is told as a gap."""


class Receiver(Protocol):
    """Where a member's messages end."""

    def hand_over(self, message: Broadcast) -> None:
        """Take a message."""
        ...

    def tell_gap(self, bindings: Collection[Binding]) -> None:
        """Hear that messages of these bindings may be missing."""
        ...


class Member:
    """One instance on an exchange. Cut off, it is given nothing; what can be kept for it is.

    Args:
        app: whose messages it gets.
        receiver: takes what arrives.
    """

    def __init__(self, app: str, receiver: Receiver) -> None:
        self.app = app
        self._receiver = receiver
        self._bound: set[Binding] = set()
        self._wished: set[Binding] = set()  # bound while cut off: live when it is back
        self._linked = True
        self._kept: deque[tuple[Transport, Broadcast]] = deque()
        self._incomplete: set[Transport] = set()

    def bind(self, binding: Binding) -> None:
        """Let it have what `binding` describes."""
        (self._bound if self._linked else self._wished).add(binding)

    def unbind(self, binding: Binding) -> None:
        """Let it have that no longer."""
        self._bound.discard(binding)
        self._wished.discard(binding)

    def has(self, binding: Binding) -> bool:
        """Whether it is to have that."""
        return binding in self._bound or binding in self._wished

    def offer(self, message: Broadcast, transport: Transport) -> None:
        """Hand over a message, or keep it, or let it pass by."""
        if not self._wants(message, transport):
            return
        if self._linked:
            self._receiver.hand_over(message)
        elif transport == "ephemeral":
            self._incomplete.add(transport)
        else:
            self._kept.append((transport, message))
            if len(self._kept) > MOST_KEPT:
                self._incomplete.add(self._kept.popleft()[0])

    def cut(self) -> None:
        """Give it nothing until `mend`. What is ephemeral counts as missed from here on."""
        self._linked = False
        self._incomplete.add("ephemeral")

    def mend(self) -> None:
        """Tell what is missing, then hand over what was kept."""
        gaps = self._wished | {b for b in self._bound if b.transport in self._incomplete}
        self._linked = True
        self._bound |= self._wished
        self._wished = set()
        self._incomplete = set()
        if gaps:
            self._receiver.tell_gap(gaps)
        kept, self._kept = self._kept, deque()
        for transport, message in kept:
            self.offer(message, transport)

    def forget(self) -> None:
        """Drop what is kept, as a broker does after its retention."""
        self._incomplete |= {transport for transport, _ in self._kept}
        self._kept.clear()

    def _wants(self, message: Broadcast, transport: Transport) -> bool:
        return any(
            binding.transport == transport
            and binding.realm == message.realm
            and matches(binding.pattern, message.channel)
            for binding in self._bound
        )


@dataclass(slots=True, eq=False)
class Exchange:
    """All members of one hub, of one event loop."""

    name: str
    loop: asyncio.AbstractEventLoop
    members: list[Member] = field(default_factory=list[Member])

    def publish(self, app: str, message: Broadcast, transport: Transport) -> None:
        """Offer a message to every member of an application."""
        for member in tuple(self.members):
            if member.app == app:
                member.offer(message, transport)


class Exchanges:
    """Opens an exchange for its first member and drops it after the last.

    Like a hub it belongs to the event loop of its first user. It keeps nothing in a file.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[str, Exchange] = {}

    def enter(self, options: MemoryOptions, member: Member) -> Exchange:
        """Return the exchange of a hub, with one more member.

        Raises:
            ConnectError: it belongs to another event loop, which is still open.
        """
        loop = asyncio.get_running_loop()
        with self._guard:
            found = self._open.get(options.hub)
            if found is None or found.loop.is_closed():
                found = self._open[options.hub] = Exchange(options.hub, loop)
            options.check_loop(found.loop)
            found.members.append(member)
        return found

    def leave(self, exchange: Exchange, member: Member) -> None:
        """Have one member less."""
        with self._guard:
            exchange.members.remove(member)
            if not exchange.members and self._open.get(exchange.name) is exchange:
                del self._open[exchange.name]


EXCHANGES = Exchanges()
"""Of this process: a hub's name means the same to every instance in it."""
