"""The event queue on RabbitMQ: puts the parts together."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectionLost, EncodeError, TopologyError
from cluster_kit.ports import AdapterContext, DeadEntry, Health, QueueDepth, Received
from cluster_kit_amqp.connection.together import Connections
from cluster_kit_amqp.control.seam import ACCESS_REFUSED, NOT_FOUND, ControlLink, counts
from cluster_kit_amqp.link import ChannelDown, LinkError
from cluster_kit_amqp.tasks.consumer import CALL_TIMEOUT, AmqpConsumer, ConsumerContext
from cluster_kit_amqp.tasks.dead_letters import read_dead
from cluster_kit_amqp.tasks.directory import announce, read_channels
from cluster_kit_amqp.tasks.publisher import Publisher
from cluster_kit_amqp.tasks.turns import Turns
from cluster_kit_amqp.tasks.upkeep import Upkeep

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName

log = logging.getLogger(__name__)

_SHORT_TEXT = 500  # characters of an error, where there is room for little


class AmqpEventQueue:
    """Implements `cluster_kit.ports.EventQueueAdapter`.

    Args:
        url: see `cluster_kit_amqp.options`.
        context: of the port.

    Raises:
        UnknownOptionError: the URL has an option nothing reads.
        ConfigurationError: the URL is wrong otherwise, or a certificate file is.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._context = context
        self._connections = Connections(url, context)
        self._problems = self._connections.problems
        self._publishing = self._connections.publishing
        self._consuming = self._connections.consuming
        self._control = self._connections.control
        self._consumer_context = ConsumerContext(
            connection=self._consuming,
            declarer=self._connections.declarer(self._announce),
            context=context,
            problems=self._problems,
        )
        declarer = self._connections.declarer(self._announce)
        self._upkeep = Upkeep(self._publishing, declarer, context, self._problems)
        self._publisher = Publisher(
            self._publishing, declarer, context, self._problems, self._upkeep
        )
        self._consumers: list[AmqpConsumer] = []
        self._consumed: set[QueueName] = set()
        self._turns = Turns()

    async def _announce(self, queue: QueueName) -> None:
        await self._publishing.writable()  # while the broker blocks publishers, nothing is made
        async with self._connections.declaring.link() as link:
            await announce(link, queue, self._context.clock)

    # --- life --------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        Raises:
            ConnectError: no host could be used.
        """
        await self._connections.open()
        self._upkeep.open()

    async def close(self) -> None:
        """Close consumers, then connections. Idempotent, legal before `connect`."""
        consumers, self._consumers = self._consumers, []
        spawn = self._context.tasks.spawn
        closing = {spawn(each.close(), name="amqp consumer close") for each in consumers}
        closing.add(spawn(self._upkeep.close(), name="amqp upkeep close"))
        await asyncio.wait(closing)
        await self._connections.close()
        self._publisher.close()

    def health(self) -> Health:
        """Return the state as known now."""
        return self._connections.health()

    # --- messages ----------------------------------------------------------------------------

    async def publish(self, envelope: Envelope, *, delay: float = 0.0, timeout: float) -> None:
        """Store a task; return when the broker has it on a majority.

        Raises:
            ConnectionLost: nothing was sent within `timeout` seconds.
            PublishRefused: the broker said no; `PublishBlocked` when it blocks publishers.
            Unroutable: there is no queue and none could be made.
            PublishUnconfirmed: it was sent and not answered.
            TopologyError: the queue is there with other arguments, or missing where this adapter
                may not make it.
        """
        await self._publisher.publish(envelope, delay, timeout)

    async def bury(self, envelope: Envelope, *, timeout: float) -> None:
        """Store a dead letter, in need with less text, or without headers. Raises as `publish`."""
        for letter, lacks in ((envelope, "its text"), (_terse(envelope), "headers")):
            try:
                await self._publisher.publish(letter, 0.0, timeout, bury=True)
            except EncodeError as exc:
                log.warning("dead letter %s cannot keep %s: %s", envelope.id, lacks, exc)
            else:
                return
        bare = dataclasses.replace(_terse(envelope), headers={})
        await self._publisher.publish(bare, 0.0, timeout, bury=True)

    async def consume(
        self,
        queue: QueueName,
        *,
        prefetch: int,
        on_delivery: Callable[[Received], None],
        paused: bool = False,
    ) -> AmqpConsumer:
        """Start taking, or start paused.

        Raises:
            TopologyError: the queue exists with other arguments.
            ConnectionLost: there is no connection now.
        """
        consumer = AmqpConsumer(
            queue,
            self._consumer_context,
            prefetch=prefetch,
            on_delivery=on_delivery,
            paused=paused,
        )
        await consumer.start()
        self._consumers = [known for known in self._consumers if not known.ended]
        self._consumers.append(consumer)
        self._consumed.add(queue)
        self._upkeep.use(queue)
        return consumer

    @asynccontextmanager
    async def read_dead(self, queue: QueueName) -> AsyncGenerator[AsyncIterator[DeadEntry], None]:
        """Go through the dead letters, without those another reader holds meanwhile.

        Raises:
            ConnectionLost: there is no connection.
        """
        async with self._asking() as link, read_dead(link, self._turns, queue) as entries:
            yield entries

    # --- questions ---------------------------------------------------------------------------

    async def depth(self, queue: QueueName) -> QueueDepth | None:
        """Count a queue's messages; None when there is no such queue."""
        async with self._asking() as link:
            work = await counts(link, queue.full)
            dead = None if work is None else await counts(link, queue.dead)
        if work is None:
            return None
        return QueueDepth(
            ready=work.ready, dead=0 if dead is None else dead.ready, consumers=work.consumers
        )

    async def purge(self, queue: QueueName) -> int:
        """Drop the tasks that wait for a consumer and return how many."""
        async with self._asking() as link:
            return await _purged(link, queue.full)

    async def channels(self) -> list[QueueName]:
        """Return this application's queues, sorted: those on the list, and those used here."""
        app = self._context.app
        used = {queue for queue in self._consumed | self._publisher.used if queue.app == app}
        async with self._asking() as link:
            return await read_channels(link, self._turns, app, used)

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[ControlLink, None]:
        """Have the link questions are asked on."""
        try:
            async with AsyncExitStack() as stack:
                yield await self._control_within(CALL_TIMEOUT, stack)
        except ChannelDown as exc:
            if exc.code == ACCESS_REFUSED:
                raise TopologyError("the broker", exc.reason) from exc
            raise ConnectionLost(exc.reason) from exc
        except LinkError as exc:
            raise ConnectionLost(exc.reason) from exc

    async def _control_within(self, seconds: float, stack: AsyncExitStack) -> ControlLink:
        try:
            async with asyncio.timeout(seconds):
                await self._consuming.ready()
                return await stack.enter_async_context(self._control.link())
        except TimeoutError:
            raise ConnectionLost(f"no connection within {seconds:g} s") from None


def _terse(envelope: Envelope) -> Envelope:
    """Return a dead letter with a short text of its error."""
    death = envelope.death
    if death is not None:
        death = dataclasses.replace(death, error_text=death.error_text[:_SHORT_TEXT])
    return dataclasses.replace(envelope, death=death)


async def _purged(link: ControlLink, name: str) -> int:
    async with link.channel() as channel:
        try:
            return await channel.purge(name)
        except ChannelDown as exc:
            if exc.code != NOT_FOUND:
                raise
            return 0
