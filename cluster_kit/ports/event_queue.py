"""Queues of tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cluster_kit.ports.context import AdapterContext

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports.context import Health


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """Messages in a queue: waiting for a consumer, and dead. What somebody holds is left out.

    `consumers` is 0 when nobody takes from it; an instance may count as more than one.
    """

    ready: int
    dead: int
    consumers: int


class Received(Protocol):
    """One delivery, as an adapter hands it to the service. It is settled exactly once."""

    @property
    def envelope(self) -> Envelope:
        """The task. Malformed or spoofed metadata was replaced by defaults, not raised."""
        ...

    @property
    def copy_id(self) -> str:
        """Identity of the stored copy, equal when the same copy is delivered again.

        Empty when a foreign publisher gave none.
        """
        ...

    @property
    def redeliveries(self) -> int:
        """Earlier deliveries of this copy that ended without an outcome, as far as counted."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether this copy was delivered before, counted or not."""
        ...

    @property
    def give_back_counts(self) -> bool:
        """Whether `give_back` raises `redeliveries` for whoever gets the task next."""
        ...

    @property
    def lost(self) -> bool:
        """Whether it is known, without asking the broker, that it cannot be settled any more."""
        ...

    async def ack(self) -> None:
        """Settle: the task leaves the queue.

        Raises:
            ConnectionLost: the delivery is not ours any more; the task will be delivered again.
        """
        ...

    async def give_back(self) -> None:
        """Settle: the task returns to the queue for anyone, first in line. Raises as `ack`."""
        ...


class Consumer(Protocol):
    """A running consumer of one queue. It heals itself after every loss.

    At any time it is taking, or it is paused, or `EventQueueAdapter.health` says what is wrong.
    """

    async def pause(self) -> None:
        """Take nothing more until `resume`. Unsettled deliveries stay ours. Idempotent.

        What had been on the way may still be handed over while this runs.
        """
        ...

    async def resume(self, prefetch: int | None = None) -> None:
        """Take again. Idempotent; also legal while the connection is away.

        From now on at most `prefetch` deliveries are unsettled at any time, where it is given: the
        same or more while it takes, less only while it is paused.
        """
        ...

    async def close(self) -> None:
        """Stop for good. What was not settled returns to the queue. Idempotent."""
        ...


class DeadEntry(Protocol):
    """A dead letter held by a reader."""

    @property
    def envelope(self) -> Envelope:
        """The task, with `death` set."""
        ...

    async def remove(self) -> None:
        """Take it out of the dead letters for good."""
        ...


class EventQueueAdapter(Protocol):
    """Durable queues with dead letters. At least once; each method says what it promises.

    Every method that touches the broker raises errors of `cluster_kit.errors` only. A queue and
    its dead letters are made by whoever needs them first.
    """

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        From then on the adapter keeps itself connected until `close`.

        Raises:
            ConnectError: unreachable, refused, or not what it should be.
        """
        ...

    async def close(self) -> None:
        """Close everything; consumers are closed first. Idempotent, legal before `connect`."""
        ...

    async def publish(self, envelope: Envelope, *, delay: float = 0.0, timeout: float) -> None:
        """Store a task; return when the broker has it on a majority.

        Survives a reconnect by publishing again under the same id. A positive `delay` (seconds)
        makes it wait in the broker, overtaken by shorter delays.

        Raises:
            ConnectionLost: `timeout` seconds passed without a connection; nothing was sent.
            PublishRefused: the broker said no.
            EncodeError: its headers are more than can travel; nothing was sent.
            Unroutable: there is no such queue and it could not be made.
            PublishUnconfirmed: `timeout` passed after it was sent; it may be stored.
            TopologyError: the queue, or what leads to it, is not as it should be.
        """
        ...

    async def bury(self, envelope: Envelope, *, timeout: float) -> None:
        """Store a dead letter (`envelope.death` is set), bytes intact. Raises as `publish`."""
        ...

    async def consume(
        self,
        queue: QueueName,
        *,
        prefetch: int,
        on_delivery: Callable[[Received], None],
        paused: bool = False,
    ) -> Consumer:
        """Start taking, or start `paused`; at most `prefetch` deliveries are unsettled at any time.

        `on_delivery` returns at once. Losing the connection ends every outstanding `Received`;
        the copies come again, to this or another instance.

        Raises:
            TopologyError: the queue exists with other arguments.
            TransportError: there is no connection now.
        """
        ...

    def read_dead(self, queue: QueueName) -> AbstractAsyncContextManager[AsyncIterator[DeadEntry]]:
        """Go through the dead letters there are now, oldest first.

        Entries are held while the context is open; those not removed go back in their order.
        """
        ...

    async def depth(self, queue: QueueName) -> QueueDepth | None:
        """Count a queue's messages; None when there is no such queue."""
        ...

    async def purge(self, queue: QueueName) -> int:
        """Drop the tasks that wait for a consumer and return how many. Dead letters stay."""
        ...

    async def channels(self) -> list[QueueName]:
        """Return the queues of this application known to the broker, sorted by name."""
        ...

    def health(self) -> Health:
        """Return the state as known now, without asking the broker."""
        ...


EventQueueFactory = Callable[[str, AdapterContext], EventQueueAdapter]
"""Makes an adapter from its URL. Raises `UnknownOptionError` for query options it does not know."""
