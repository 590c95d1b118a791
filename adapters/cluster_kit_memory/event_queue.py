"""The event queue of an instance, on a hub it may share with others."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.errors import (
    ConnectError,
    ConnectionLost,
    PublishRefused,
    PublishUnconfirmed,
)
from cluster_kit.ports import Health, QueueDepth
from cluster_kit_memory.consumer import DeadReader, MemoryConsumer, stored
from cluster_kit_memory.hubs import HUBS, OpenHub
from cluster_kit_memory.options import parse_url
from cluster_kit_memory.records import check_envelope
from cluster_kit_memory.work_queue import Taker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import AdapterContext, HealthStatus, Received
    from cluster_kit_memory.hub import Hub
    from cluster_kit_memory.store import Done

_ADAPTER = "memory"
_PURPOSE = "event_queue"


class MemoryEventQueue:
    """An `EventQueueAdapter` on a hub of this process.

    Adapters that are connected to one hub are instances of one cluster: they share its queues in
    turn, and what one of them loses comes to the others. `disconnect` and `reconnect` stand for a
    link that breaks, so that whatever is built on a queue can be tested against it.

    Args:
        url: see `cluster_kit_memory.options`.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._options = parse_url(url)
        self._context = context
        self._used: OpenHub | None = None
        self._linked = asyncio.Event()
        self._consumers: list[MemoryConsumer] = []
        self._readers: set[DeadReader] = set()
        self._connecting = asyncio.Lock()
        self._since = context.clock.wall()

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Join the hub, opening it and reading its file when this is its first instance.

        Raises:
            ConnectError: the hub belongs to another event loop, or its file is in use, damaged,
                or not readable.
        """
        async with self._connecting:
            if self._used is not None:
                return
            limit = self._context.connect_timeout
            try:
                async with asyncio.timeout(limit):
                    self._used = await HUBS.enter(self._options, self._context)
            except TimeoutError:
                text = f"reading {self._options.path} takes longer than {limit:g} s"
                raise ConnectError(self._options.url, text) from None
            self._used.hub.timer.join(self._context.tasks)
            self.reconnect()

    async def close(self) -> None:
        """Leave the hub. What was not settled goes back; the last one closes hub and file."""
        async with self._connecting:
            used, self._used = self._used, None
            if used is None:
                return
            for consumer in self._consumers:
                await consumer.close()
            self._consumers.clear()
            self._end_readers()
            self._linked.set()  # publishers that wait for the link find the hub gone
            self._since = self._context.clock.wall()
            used.hub.timer.leave(self._context.tasks)
            await HUBS.leave(used)
            self._linked.clear()

    def disconnect(self, reason: str = "cut by a test") -> None:
        """Break the link of this instance, as when its connection to a broker is lost.

        Its deliveries are taken back as redelivered and its readers end; the hub and the other
        instances go on. Publishing waits for `reconnect`. Idempotent.
        """
        if self._linked.is_set():
            self._linked.clear()
            self._since = self._context.clock.wall()
            self._context.emit("connection.lost", adapter=_ADAPTER, purpose=_PURPOSE, reason=reason)
            for consumer in self._live_consumers():
                if consumer.taking:
                    name = consumer.queue.full
                    self._context.emit("consumer.lost", adapter=_ADAPTER, queue=name, reason=reason)
                consumer.cut()
            self._end_readers()

    def reconnect(self) -> None:
        """Mend the link: consumers that are not paused take again. Idempotent.

        Raises:
            ConnectionLost: the adapter is not connected to its hub.
        """
        self._any_hub()
        if not self._linked.is_set():
            self._linked.set()
            self._since = self._context.clock.wall()
            self._context.emit(
                "connection.up", adapter=_ADAPTER, purpose=_PURPOSE, url=self._options.url
            )
            for consumer in self._live_consumers():
                consumer.mend()
                self._report_taking(consumer)

    def health(self) -> Health:
        """Return `down` without a link, `degraded` while the file cannot be written, else `ok`."""
        status: HealthStatus = "ok"
        detail, since = f"hub {self._options.hub!r}", self._since
        if self._used is None or not self._linked.is_set():
            status, detail = "down", f"not connected to hub {self._options.hub!r}"
        elif self._used.store.trouble:
            status, detail = "degraded", self._used.store.trouble
            since = max(since, self._used.store.trouble_since)
        return Health(status=status, detail=detail, since=since)

    # --- tasks -----------------------------------------------------------------------------------

    async def publish(self, envelope: Envelope, *, delay: float = 0.0, timeout: float) -> None:
        """Store a task; on return it is in the hub, and on disk when the hub has a file.

        Raises:
            ConnectionLost: not connected, or the link stayed broken for `timeout` seconds.
            EncodeError: a header has a value that the file cannot keep, or a field makes no sense.
            PublishRefused: the file cannot be written.
            PublishUnconfirmed: `timeout` seconds passed while the file was being written.
        """
        await self._store(envelope, timeout, lambda hub: partial(hub.put, envelope, delay))

    async def bury(self, envelope: Envelope, *, timeout: float) -> None:
        """Store a dead letter. Raises as `publish`."""
        await self._store(envelope, timeout, lambda hub: partial(hub.bury, envelope))

    async def _store(
        self, envelope: Envelope, timeout: float, call: Callable[[Hub], Callable[[Done], None]]
    ) -> None:
        check_envelope(envelope)
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                hub = await self._linked_hub()
        except TimeoutError:
            raise ConnectionLost(f"no connection to the hub for {timeout:g} s") from None
        try:
            async with asyncio.timeout_at(deadline):
                error = await stored(call(hub))
        except TimeoutError:
            text = f"the hub's file was not written within {timeout:g} s"
            raise PublishUnconfirmed(envelope.id, text) from None
        if error is not None:
            raise PublishRefused(f"task {envelope.id} is not stored: {error}") from error

    async def consume(
        self,
        queue: QueueName,
        *,
        prefetch: int,
        on_delivery: Callable[[Received], None],
        paused: bool = False,
    ) -> MemoryConsumer:
        """Start taking from `queue`, which exists from then on, or start `paused`.

        Raises:
            ConnectionLost: not connected, or the link is broken.
        """
        hub = self._hub()
        taker = partial(Taker, hub.open_queue(queue), queue, self, prefetch)
        consumer = MemoryConsumer(hub, taker, on_delivery, paused=paused)
        self._consumers = [*self._live_consumers(), consumer]
        self._report_taking(consumer)
        return consumer

    # --- looking ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def read_dead(self, queue: QueueName) -> AsyncGenerator[DeadReader]:
        """Go through the dead letters there are now; see `DeadReader`.

        Raises:
            ConnectionLost: not connected, or the link is broken.
        """
        reader = DeadReader(self._hub(), queue)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            reader.close()

    async def depth(self, queue: QueueName) -> QueueDepth | None:
        """Count; None for a queue that nobody used yet.

        `ready` leaves out what is delayed or handed out, `dead` what a reader holds; `consumers`
        counts instances that are taking, so not those that paused. Raises as `consume`.
        """
        found = self._hub().find_queue(queue)
        if found is None:
            return None
        dead = len(found.dead) - len(found.held)
        return QueueDepth(ready=found.ready, dead=dead, consumers=found.instances)

    async def purge(self, queue: QueueName) -> int:
        """Drop what is in line; delayed tasks and dead letters stay. Raises as `consume`."""
        hub = self._hub()
        found = hub.find_queue(queue)
        if found is None:
            return 0
        dropped: list[int] = []
        await stored(lambda done: dropped.append(hub.purge(found, done)))
        return dropped[0]

    async def channels(self) -> list[QueueName]:
        """Return this application's queues in the hub, without shared ones. Raises as `consume`."""
        names = (name for name in self._hub().names() if name.app == self._context.app)
        return sorted(names, key=lambda name: name.channel)

    # --- the link --------------------------------------------------------------------------------

    def _any_hub(self) -> Hub:
        if self._used is None:
            raise ConnectionLost(f"not connected to hub {self._options.hub!r}")
        return self._used.hub

    def _hub(self) -> Hub:
        hub = self._any_hub()
        if not self._linked.is_set():
            raise ConnectionLost(f"the link to hub {self._options.hub!r} is broken")
        return hub

    async def _linked_hub(self) -> Hub:
        if self._used is not None:
            await self._linked.wait()
        return self._any_hub()

    def _report_taking(self, consumer: MemoryConsumer) -> None:
        if consumer.taking:
            queue = consumer.queue.full
            self._context.emit("consumer.started", adapter=_ADAPTER, queue=queue)

    def _live_consumers(self) -> list[MemoryConsumer]:
        return [consumer for consumer in self._consumers if not consumer.closed]

    def _end_readers(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()
