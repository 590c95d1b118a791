"""An adapter whose faults a test can order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectError
from cluster_kit.ports import AdapterSpec
from cluster_kit_memory.event_queue import MemoryEventQueue

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import AdapterContext, Received
    from cluster_kit_memory.consumer import MemoryConsumer

SCHEME = "faulty"


class WornDelivery:
    """A delivery at a broker that counts every give-back, after `redeliveries` of them."""

    give_back_counts = True

    def __init__(self, received: Received, redeliveries: int) -> None:
        self.redelivered: bool = redeliveries > 0
        self.envelope = received.envelope
        self.copy_id = received.copy_id
        self.redeliveries = redeliveries
        self._received = received
        self.ack = received.ack
        self.give_back = received.give_back

    @property
    def lost(self) -> bool:
        return self._received.lost


class FaultyQueue(MemoryEventQueue):
    """The memory adapter with faults.

    `log` has what was called; the other attributes of `Faults` say what goes wrong.
    """

    def __init__(self, url: str, context: AdapterContext, faults: Faults) -> None:
        hub = url.removeprefix(f"{SCHEME}://").rpartition("@")[2]
        super().__init__(f"memory://{hub}", context)
        self._url = url
        self._faults = faults
        self._delivered: Counter[str] = Counter()

    async def connect(self) -> None:
        self._faults.log.append("connect")
        if self._faults.refuses:
            raise ConnectError(self._url, f"nobody answers at {self._url}")
        await super().connect()

    async def publish(self, envelope: Envelope, *, delay: float = 0.0, timeout: float) -> None:
        if self._faults.publish_waits is not None:
            raise await self._faults.publish_waits(envelope)
        if self._faults.publish_fails and (error := self._faults.publish_fails(envelope, delay)):
            raise error
        await super().publish(envelope, delay=delay, timeout=timeout)

    async def consume(
        self,
        queue: QueueName,
        *,
        prefetch: int,
        on_delivery: Callable[[Received], None],
        paused: bool = False,
    ) -> MemoryConsumer:
        if self._faults.consume_fails:
            raise self._faults.consume_fails
        worn, counting = self._faults.worn, self._faults.counting

        def deliver(received: Received) -> None:
            if counting:
                before = self._delivered[received.copy_id]
                self._delivered[received.copy_id] += 1
                on_delivery(WornDelivery(received, before))
            else:
                on_delivery(WornDelivery(received, worn) if worn else received)

        return await super().consume(queue, prefetch=prefetch, on_delivery=deliver, paused=paused)

    async def close(self) -> None:
        self._faults.log.append("close")
        await super().close()
        if self._faults.close_fails:
            raise self._faults.close_fails


class Faults:
    """Orders faults for the adapters of one cluster, which has URL ``faulty://…``."""

    def __init__(self, cluster: Cluster) -> None:
        self.log: list[str] = []
        self.refuses = False
        self.close_fails: Exception | None = None
        self.consume_fails: Exception | None = None
        self.publish_fails: Callable[[Envelope, float], Exception | None] | None = None
        self.publish_waits: Callable[[Envelope], Awaitable[Exception]] | None = None
        self.worn = 0
        self.counting = False  # each delivery of a copy counts as one more
        self.made: list[FaultyQueue] = []
        spec = AdapterSpec(name=SCHEME, schemes=(SCHEME,), event_queue=self._make)
        cluster.registry.register(spec)

    def _make(self, url: str, context: AdapterContext) -> FaultyQueue:
        self.made.append(FaultyQueue(url, context, self))
        return self.made[-1]
