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
    from cluster_kit_amqp.topology import Steps

PREFETCH = 200


class _OwnQueue:
    """What both kinds share: bindings, and calls on channels that nothing else depends on."""

    def __init__(self, declarer: Declarer, context: AdapterContext) -> None:
        self._declarer, self._context = declarer, context
        self.name: str = ""
        self.bound: set[Binding] = set()
        self.held: set[Binding] = set()
        self.shared: bool = False
        self._seen: set[str] = set()  # exchanges that were there; after a loss that is tried first

    def consumption(self) -> Consumption:
        """Return the queue of now."""
        return Consumption(queue=self.name, prefetch=PREFETCH, arguments=NO_ARGUMENTS)

    def took(self, incoming: Incoming) -> None:
        """Nothing is to be noted or told: the broker keeps account."""

    async def look(self, link: Link) -> None:
        """Count who consumes beside this connection."""
        async with link.channel() as channel:
            counts = await channel.check_queue(self.name)
        self.shared = counts.consumers > 1

    async def bind(self, link: Link, bindings: Iterable[Binding]) -> Refusals:
        """Bind all of an exchange together; one that is refused costs its channel only."""
        refused: dict[Binding, TopologyError] = {}
        left = list(bindings)
        while left:
            realm, transport = left[0].realm, left[0].transport
            some = [binding for binding in left if binding.realm == realm]
            left = [binding for binding in left if binding.realm != realm]
            exchange = exchange_name(self._context.app, realm, transport)
            steps = exchange_steps(self._context.app, realm, transport)
            refused.update(await self._bind_to(link, exchange, steps, some))
        return refused

    async def _bind_to(
        self, link: Link, exchange: str, steps: Steps, left: list[Binding]
    ) -> Refusals:
        """Bind all of `left` to one exchange."""
        refused: dict[Binding, TopologyError] = {}
        while left:
            trusted = exchange in self._seen
            try:
                if not trusted:
                    await self._declarer.ensure(link, exchange, steps)
                await self._bind_together(link, exchange, left)
            except TopologyError as exc:
                return {**refused, **dict.fromkeys(left, exc)}
            except ChannelDown as exc:
                self._seen.discard(exchange)
                self._declarer.forget(exchange)
                refusal = topology_error(self.name, exc)
                if refusal is None or (trusted and exc.code == NOT_FOUND):
                    raise
                if not trusted:  # else it is asked for once more
                    refused[left.pop(0)] = refusal
            else:
                self._seen.add(exchange)
        return refused

    async def _bind_together(self, link: Link, exchange: str, left: list[Binding]) -> None:
        """Ask for all of `left` before the first answer; what is bound leaves it.

        Raises:
            ChannelDown: the first that is left then was refused.
        """
        known = self.held.intersection(left)
        async with link.channel() as channel:
            self.held.update(left)
            answers = [channel.bind_queue(self.name, exchange, each.pattern) for each in left]
            try:
                for answer in answers:
                    await answer
                    self.bound.add(left.pop(0))
            except ChannelDown as exc:
                if exc.code:  # behind one that is refused nothing is bound
                    self.held.difference_update({*left} - known)
                raise

    async def unbind(self, link: Link, bindings: Iterable[Binding]) -> None:
        """Undo bindings, asking for all before the first answer."""
        left = list(bindings)
        async with link.channel() as channel:
            answers = [
                channel.unbind_queue(
                    self.name,
                    exchange_name(self._context.app, each.realm, each.transport),
                    each.pattern,
                )
                for each in left
            ]
            try:
                for answer in answers:
                    await answer
                    self._let_go(left.pop(0))
            except ChannelDown as exc:
                if exc.code:  # it is refused the next time too
                    self._let_go(left[0])
                raise

    def _let_go(self, binding: Binding) -> None:
        self.bound.discard(binding)
        self.held.discard(binding)

    def _is_new(self, name: str) -> None:
        """Begin with a queue that nothing leads to."""
        self.name = name
        self.shared = False
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
    """A queue that outlives connections: it is new when the old one has expired.

    No other instance consumes it, only connections of this one.
    """

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
            self.shared = counts.consumers > 0
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
