"""Queues of an instance's own: one that goes with the connection, one that stays for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster_kit.errors import TopologyError
from cluster_kit_amqp.broadcast.names import (
    ephemeral_arguments,
    exchange_name,
    exchange_steps,
    own_queue,
    sticky_arguments,
)
from cluster_kit_amqp.broadcast.source import Consumption, refuse, topology_error
from cluster_kit_amqp.control.seam import NOT_FOUND
from cluster_kit_amqp.link import NO_ARGUMENTS, ChannelDown

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.broadcast.source import Refusals
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.link import Incoming, Link

PREFETCH = 200


class _OwnQueue:
    """What both kinds share: bindings, and calls on channels that nothing else depends on."""

    def __init__(self, declarer: Declarer, context: AdapterContext) -> None:
        self._declarer, self._context = declarer, context
        self.name: str = ""
        self.bound: set[Binding] = set()
        self.held: set[Binding] = set()
        self._seen: set[str] = set()  # exchanges that were there; after a loss that is tried first

    def consumption(self) -> Consumption:
        """Return the queue of now."""
        return Consumption(queue=self.name, prefetch=PREFETCH, arguments=NO_ARGUMENTS)

    def took(self, incoming: Incoming) -> None:
        """Nothing is to be noted or told: the broker keeps account."""

    async def bind(self, link: Link, bindings: Iterable[Binding]) -> Refusals:
        """Bind one after the other; one that is refused costs its channel only."""
        refused: dict[Binding, TopologyError] = {}
        left = list(bindings)
        while left:
            refusal = await self._bind_some(link, left)
            if refusal is not None:
                refused[left.pop()] = refusal
        return refused

    async def _bind_some(self, link: Link, left: list[Binding]) -> TopologyError | None:
        """Bind until all are, or one is refused: that is then the last of `left`."""
        app = self._context.app
        async with link.channel() as channel:
            while left:
                binding = left[-1]
                exchange = exchange_name(app, binding.realm, binding.transport)
                steps = exchange_steps(app, binding.realm, binding.transport)
                trusted, known = exchange in self._seen, binding in self.held
                try:
                    if not trusted:
                        await self._declarer.ensure(link, exchange, steps)
                    self.held.add(binding)
                    await channel.bind_queue(self.name, exchange, binding.pattern)
                except TopologyError as exc:
                    return exc
                except ChannelDown as exc:
                    self._seen.discard(exchange)
                    self._declarer.forget(exchange)
                    if exc.code and not known:
                        self.held.discard(binding)
                    refusal = topology_error(self.name, exc)
                    if refusal is None or trusted:
                        raise
                    return refusal
                self._seen.add(exchange)
                self.bound.add(left.pop())
        return None

    async def unbind(self, link: Link, bindings: Iterable[Binding]) -> None:
        """Undo bindings."""
        async with link.channel() as channel:
            for binding in bindings:
                exchange = exchange_name(self._context.app, binding.realm, binding.transport)
                try:
                    await channel.unbind_queue(self.name, exchange, binding.pattern)
                except ChannelDown as exc:
                    if exc.code:  # it is refused the next time too
                        self._let_go(binding)
                    raise
                self._let_go(binding)

    def _let_go(self, binding: Binding) -> None:
        self.bound.discard(binding)
        self.held.discard(binding)

    def _is_new(self, name: str) -> None:
        """Begin with a queue that nothing leads to."""
        self.name = name
        self.bound.clear()
        self.held.clear()

    async def leave(self, link: Link) -> None:
        """Delete the queue."""
        name = self.name
        self._is_new("")
        if name:
            async with link.channel() as channel:
                await channel.delete_queue(name)


class EphemeralQueue(_OwnQueue):
    """A queue of the connection's own: it is new on every link."""

    def __init__(self, declarer: Declarer, context: AdapterContext) -> None:
        super().__init__(declarer, context)
        self._link: Link | None = None

    async def open(self, link: Link) -> str | None:
        """Make it."""
        before = self.name
        if link is self._link:
            await self.leave(link)
        self._is_new(own_queue("sub", self._context))
        self._link = link
        try:
            async with link.channel() as channel:
                await channel.declare_queue(self.name, ephemeral_arguments(), exclusive=True)
        except ChannelDown as exc:
            refuse(self.name, exc)
        return "the connection was lost" if before else None


class StickyQueue(_OwnQueue):
    """A queue that outlives connections: it is new when the old one has expired."""

    def __init__(self, declarer: Declarer, context: AdapterContext) -> None:
        super().__init__(declarer, context)
        self._making = ""  # declared, not answered

    async def open(self, link: Link) -> str | None:
        """Look whether it is still there, and make another where it is not."""
        if not self.name:
            await self._make(link)
            return None
        self.bound.clear()  # meanwhile exchanges may have been deleted
        try:
            async with link.channel() as channel:
                counts = await channel.check_queue(self.name)
        except ChannelDown as exc:
            if exc.code != NOT_FOUND:
                refuse(self.name, exc)
        else:
            most = self._context.broadcasts.sticky_max_messages
            return f"more than {most} messages came" if counts.ready >= most else None
        await self._make(link)
        return "what was kept is gone"

    async def _make(self, link: Link) -> None:
        name = self._making = self._making or own_queue("keep", self._context)
        try:
            async with link.channel() as channel:
                await channel.declare_queue(name, sticky_arguments(self._context.broadcasts))
        except ChannelDown as exc:
            if exc.code:  # what has this name is not ours
                self._making = ""
            refuse(name, exc)
        self._making = ""
        self._is_new(name)

    async def leave(self, link: Link) -> None:
        """Delete the queue, also one of which it is unknown whether it has been made."""
        making, self._making = self._making, ""
        await super().leave(link)
        if making:
            async with link.channel() as channel:
                await channel.delete_queue(making)
