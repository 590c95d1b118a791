"""The event queue on RabbitMQ: puts the parts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.errors import ConnectionLost, TopologyError
from cluster_kit.ports import AdapterContext, DeadEntry, Health, QueueDepth, Received
from cluster_kit_amqp.connection import Connection, Purpose
from cluster_kit_amqp.consumer import CALL_TIMEOUT, AmqpConsumer, Surroundings
from cluster_kit_amqp.control import Control, ControlChannel, ControlLink
from cluster_kit_amqp.dead_letters import read_dead
from cluster_kit_amqp.declare import ACCESS_REFUSED, NOT_FOUND, Declarer
from cluster_kit_amqp.directory import announce, read_channels
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.link import ChannelDown, Link, LinkError, QueueCounts
from cluster_kit_amqp.options import Host, parse_url
from cluster_kit_amqp.plane.link import dial
from cluster_kit_amqp.publisher import Publisher
from cluster_kit_amqp.turn import Turns

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName

T = TypeVar("T")


class AmqpEventQueue:
    """Implements `cluster_kit.ports.EventQueueAdapter`.

    Two connections carry tasks: a broker that is short of memory stops reading from one that
    publishes, and acknowledgements on it would be stuck behind. Whatever only asks or declares
    has a third, while it does.

    Args:
        url: see `cluster_kit_amqp.options`.
        context: of the port.

    Raises:
        UnknownOptionError: the URL has an option nothing reads.
        ConfigurationError: the URL is wrong otherwise, or a certificate file is.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._options, self._context = parse_url(url), context
        self._tls = self._options.tls_context()
        self._problems = Problems(context.clock)
        self._publishing = self._connection("publish")
        self._consuming = self._connection("consume")
        self._control = Control(self._dial_control, self._options, context)
        self._surroundings = Surroundings(
            connection=self._consuming,
            declarer=self._new_declarer(),
            context=context,
            problems=self._problems,
        )
        self._publisher = Publisher(self._publishing, self._new_declarer(), context)
        self._consumers: list[AmqpConsumer] = []
        self._used: set[QueueName] = set()
        self._changing_state = asyncio.Lock()
        self._turns = Turns()
        self._server = ""

    def _connection(self, purpose: Purpose) -> Connection:
        async def dial_host(host: Host) -> Link:
            return await dial(self._options, host, tls=self._tls, name=self._name(purpose))

        return Connection(
            dial_host, self._options, self._context, purpose=purpose, problems=self._problems
        )

    async def _dial_control(self, host: Host) -> ControlLink:
        # Imported here, for it loads a driver nobody needs before the first question.
        from cluster_kit_amqp.aiormq_link import dial_control  # noqa: PLC0415

        return await dial_control(
            self._options,
            host,
            tls=self._tls,
            name=self._name("control"),
            tasks=self._context.tasks,
        )

    def _name(self, purpose: str) -> str:
        """Return what the broker shows of a connection."""
        name = self._options.name or f"{self._context.app} {self._context.instance_id}"
        return f"{name} {purpose}"

    def _new_declarer(self) -> Declarer:
        return Declarer(
            self._control,
            self._options.declare,
            self._context.crash_limit,
            self._announce,
            self._context.tasks,
        )

    async def _announce(self, queue: QueueName) -> None:
        await self._publishing.writable()  # while the broker blocks publishers, nothing is made
        async with self._control.link() as link:
            await announce(link, queue)

    # --- life --------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        Raises:
            ConnectError: no host could be used.
        """
        async with self._changing_state:
            if self._publishing.state != "closed":
                return
            began = self._context.clock.monotonic()
            self._control.open()
            await self._publishing.open(self._context.connect_timeout)
            passed = self._context.clock.monotonic() - began
            try:
                await self._consuming.open(max(0.0, self._context.connect_timeout - passed))
            except BaseException:
                await self._publishing.close()
                raise
            if (link := self._consuming.link) is not None:
                self._server = f"{link.server.product} {link.server.version}"

    async def close(self) -> None:
        """Close consumers, then connections. Idempotent, legal before `connect`."""
        async with self._changing_state:
            consumers, self._consumers = self._consumers, []
            closing = {
                self._context.tasks.spawn(consumer.close(), name="amqp consumer close")
                for consumer in consumers
            }
            if closing:
                await asyncio.wait(closing)
            await self._control.close()
            await self._consuming.close()
            await self._publishing.close()
            self._publisher.close()

    def health(self) -> Health:
        """Return the state as known now."""
        if self._publishing.state == "closed":
            self._problems.report("adapter", "down", "not connected")
        else:
            self._problems.clear("adapter")
        return self._problems.health(f"connected to {self._server}")

    # --- messages ----------------------------------------------------------------------------

    async def publish(self, envelope: Envelope, *, delay: float = 0.0, timeout: float) -> None:
        """Store a task; return when the broker has it on a majority.

        Raises:
            ConnectionLost: nothing was sent within `timeout` seconds.
            PublishRefused: the broker said no, or blocks publishers.
            Unroutable: there is no queue and none could be made.
            PublishUnconfirmed: it was sent and not answered.
            TopologyError: the queue is there with other arguments, or missing where this adapter
                may not make it.
        """
        await self._store(envelope, delay, timeout, bury=False)

    async def bury(self, envelope: Envelope, *, timeout: float) -> None:
        """Store a dead letter. Raises as `publish`."""
        await self._store(envelope, 0.0, timeout, bury=True)

    async def _store(self, envelope: Envelope, delay: float, timeout: float, *, bury: bool) -> None:
        queue = envelope.queue
        part = f"publishing to {queue.full}"
        try:
            await self._publisher.publish(envelope, delay=delay, timeout=timeout, bury=bury)
        except TopologyError as exc:  # in health until one is stored
            self._problems.report(part, "degraded", f"{part} fails: {exc}")
            raise
        self._problems.clear(part)
        self._used.add(queue)

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
            self._surroundings,
            prefetch=prefetch,
            on_delivery=on_delivery,
            paused=paused,
        )
        await consumer.start()
        self._consumers = [known for known in self._consumers if not known.ended]
        self._consumers.append(consumer)
        self._used.add(queue)
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
            work = await _counts(link, queue.full)
            dead = None if work is None else await _counts(link, queue.dead)
        if work is None:
            return None
        return QueueDepth(
            ready=work.ready, dead=0 if dead is None else dead.ready, consumers=work.consumers
        )

    async def purge(self, queue: QueueName) -> int:
        """Drop the tasks that wait for a consumer and return how many."""
        async with self._asking() as link:
            purged = await _unless_missing(link, lambda channel: channel.purge(queue.full))
        return purged or 0

    async def channels(self) -> list[QueueName]:
        """Return this application's queues, sorted: those on the list, and those used here."""
        app = self._context.app
        used = {queue for queue in self._used if queue.app == app}
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


async def _counts(link: ControlLink, name: str) -> QueueCounts | None:
    return await _unless_missing(link, lambda channel: channel.check_queue(name))


async def _unless_missing(
    link: ControlLink, ask: Callable[[ControlChannel], Awaitable[T]]
) -> T | None:
    """Ask on a channel of its own; None when what is asked about is not there."""
    async with link.channel() as channel:
        try:
            return await ask(channel)
        except ChannelDown as exc:
            if exc.code != NOT_FOUND:
                raise
            return None
