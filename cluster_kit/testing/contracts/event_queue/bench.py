"""What scenarios work with: instances, their events, their dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Unpack

from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.message import DeadLetter
    from cluster_kit.plugin import Plugin
    from cluster_kit.settings.groups import EventQueueValues
    from cluster_kit.testing.contracts.event_queue.environment import Environment

Event = tuple[str, Mapping[str, object]]


class Bench:
    """Instances of one application of its own, on the environment under test.

    Attributes:
        app: name of the application.
        environment: the author's hands on the broker.
        events: what every instance reported, in order.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment: Environment = environment
        self.events: list[Event] = []
        self._factory = ClusterFactory()
        self.app: str = self._factory.name
        self._made = 0

    async def cluster(
        self,
        *,
        app: str | None = None,
        start: bool = True,
        plugins: Sequence[type[Plugin]] = (),
        worker_mode: str = "",
        **event_queue: Unpack[EventQueueValues],
    ) -> Cluster:
        """Return one more instance; `event_queue` are settings of its event queue."""
        url = await self.environment.url(self._made)
        self._made += 1
        [cluster] = await self._factory(
            name=app or self.app,
            url=url,
            start=False,
            plugins=plugins,
            worker_mode=worker_mode,
            event_queue=event_queue,
        )
        self.environment.prepare(cluster)
        cluster.telemetry.subscribe(lambda event, fields: self.events.append((event, dict(fields))))
        if start:
            await cluster.start()
        return cluster

    async def clusters(self, n: int, **event_queue: Unpack[EventQueueValues]) -> list[Cluster]:
        """Return so many started instances."""
        return [await self.cluster(**event_queue) for _ in range(n)]

    async def reported(self, event: str, **fields: object) -> Mapping[str, object]:
        """Wait until `event` was reported with these fields, and return all its fields."""

        def find() -> Event | None:
            return next(
                (e for e in self.events if e[0] == event and fields.items() <= e[1].items()), None
            )

        found = await eventually(find)
        assert found is not None
        return found[1]

    async def dead(self, cluster: Cluster, channel: str, n: int = 1) -> list[DeadLetter]:
        """Wait until a channel has at least `n` dead letters, and return them."""
        letters = cluster.event_queue.dead_letters(channel)
        await eventually(letters.count, lambda count: count >= n)
        return await eventually(letters.browse, lambda found: len(found) >= n)

    async def ready(self, cluster: Cluster, channel: str, n: int) -> None:
        """Wait until exactly `n` tasks of a channel wait for a consumer."""
        await eventually(lambda: self._ready(cluster, channel), lambda ready: ready == n)

    async def consuming(self, cluster: Cluster, channel: str, instances: int = 1) -> None:
        """Wait until so many instances take tasks of a channel."""

        async def consumers() -> int:
            depth = await cluster.event_queue.depth(channel)
            return 0 if depth is None else depth.consumers

        await eventually(consumers, lambda n: n == instances)

    async def settled(self, channel: str, *clusters: Cluster) -> None:
        """Wait until nothing of a channel waits for a consumer or runs in these instances."""

        async def busy() -> int:
            running = sum(
                stats.running
                for cluster in clusters
                if (stats := cluster.event_queue.stats().get(channel)) is not None
            )
            return running + await self._ready(clusters[0], channel)

        await eventually(busy, lambda tasks: tasks == 0)

    @asynccontextmanager
    async def outage(self, cluster: Cluster) -> AsyncGenerator[None]:
        """Keep `cluster` off the broker inside the block, from the moment it has noticed."""
        await self.environment.cut_off(cluster)
        try:
            await eventually(lambda: cluster.health()["status"] != "ok")
            yield
        finally:
            await self.environment.reconnect(cluster)

    async def cut(self, cluster: Cluster) -> None:
        """Break the link of `cluster` for a moment."""
        async with self.outage(cluster):
            pass

    async def healthy(self, cluster: Cluster) -> None:
        """Wait until `cluster` says that all is well."""
        await eventually(lambda: cluster.health()["status"] == "ok")

    async def close(self) -> None:
        """Stop every instance.

        Raises:
            ExceptionGroup: an instance did not stop well.
            AssertionError: an instance left tasks behind.
        """
        await self._factory.close()

    @staticmethod
    async def _ready(cluster: Cluster, channel: str) -> int:
        depth = await cluster.event_queue.depth(channel)
        return 0 if depth is None else depth.ready


async def happens_within(seconds: float, event: asyncio.Event) -> bool:
    """Wait at most `seconds` for `event`; the way to watch that something does not happen."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
