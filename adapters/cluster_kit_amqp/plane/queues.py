"""What a channel asks about queues and what leads to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable, Mapping

from cluster_kit_amqp.link import QueueCounts, Unencodable
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.topology import Exchange, Queue, Step


class QueueCalls(ABC):
    """The calls of `link.Channel` and `control.MakingChannel` that concern queues.

    Attributes:
        number: of the channel.
    """

    def __init__(self, number: int) -> None:
        self.number: int = number

    @abstractmethod
    def ask(self, request: bytes, answer: int) -> Future[bytes]:
        """Send a method; return what will hold the arguments of its answer."""

    @abstractmethod
    async def call(self, request: bytes, answer: int) -> bytes:
        """Send a method and wait for its answer, whose arguments are returned."""

    def make(self, step: Step, *, passive: bool = False) -> Future[bytes]:
        """Make what `step` says, or compare with what there is."""
        match step:
            case Exchange():
                request = encoded(
                    methods.declare_exchange, self.number, step.name, step.kind, passive=passive
                )
                return self.ask(request, methods.EXCHANGE_DECLARE_OK)
            case Queue():
                if passive:
                    request = encoded(methods.passive_declare, self.number, step.name)
                else:
                    what = (step.name, step.arguments)
                    request = encoded(methods.declare_queue, self.number, *what, exclusive=False)
                return self.ask(request, methods.QUEUE_DECLARE_OK)
            case _:
                names = (self.number, step.target, step.source, step.key)
                if step.target_kind == "queue":
                    return self.ask(encoded(methods.bind_queue, *names), methods.QUEUE_BIND_OK)
                return self.ask(encoded(methods.bind_exchange, *names), methods.EXCHANGE_BIND_OK)

    async def check_queue(self, name: str) -> QueueCounts:
        """Count, or raise `ChannelDown`."""
        return await self._counts(encoded(methods.passive_declare, self.number, name))

    async def declare_queue(
        self, name: str, arguments: Mapping[str, object], *, exclusive: bool = False
    ) -> QueueCounts:
        """Make a queue, or compare."""
        request = encoded(methods.declare_queue, self.number, name, arguments, exclusive=exclusive)
        return await self._counts(request)

    async def _counts(self, request: bytes) -> QueueCounts:
        ready, consumers = methods.read_declared(await self.call(request, methods.QUEUE_DECLARE_OK))
        return QueueCounts(ready=ready, consumers=consumers)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all in it."""
        request = encoded(methods.delete_queue, self.number, name)
        await self.call(request, methods.QUEUE_DELETE_OK)

    def bind_queue(self, queue: str, exchange: str, key: str) -> Future[bytes]:
        """Let `exchange` route `key` to `queue`."""
        request = encoded(methods.bind_queue, self.number, queue, exchange, key)
        return self.ask(request, methods.QUEUE_BIND_OK)

    def unbind_queue(self, queue: str, exchange: str, key: str) -> Future[bytes]:
        """Undo `bind_queue`."""
        request = encoded(methods.unbind_queue, self.number, queue, exchange, key)
        return self.ask(request, methods.QUEUE_UNBIND_OK)


def encoded(
    encode: Callable[..., bytes], *arguments: int | str | Mapping[str, object], **more: bool
) -> bytes:
    """Return a method, or raise `Unencodable`."""
    try:
        return encode(*arguments, **more)
    except ValueError as exc:
        raise Unencodable(str(exc)) from exc
