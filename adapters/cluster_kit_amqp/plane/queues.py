"""What a channel asks about queues."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from cluster_kit_amqp.link import QueueCounts, Unencodable
from cluster_kit_amqp.plane import methods


class QueueCalls(ABC):
    """The calls of `cluster_kit_amqp.link.Channel` that concern queues.

    Attributes:
        number: of the channel.
    """

    def __init__(self, number: int) -> None:
        self.number: int = number

    @abstractmethod
    async def call(self, request: bytes, answer: int) -> bytes:
        """Send a method and wait for its answer, whose arguments are returned."""

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

    async def bind_queue(self, queue: str, exchange: str, key: str) -> None:
        """Let `exchange` route `key` to `queue`."""
        request = encoded(methods.bind_queue, self.number, queue, exchange, key)
        await self.call(request, methods.QUEUE_BIND_OK)

    async def unbind_queue(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind_queue`."""
        request = encoded(methods.unbind_queue, self.number, queue, exchange, key)
        await self.call(request, methods.QUEUE_UNBIND_OK)


def encoded(
    encode: Callable[..., bytes], *arguments: int | str | Mapping[str, object], **more: bool
) -> bytes:
    """Return a method, or raise `Unencodable`."""
    try:
        return encode(*arguments, **more)
    except ValueError as exc:
        raise Unencodable(str(exc)) from exc
