"""What scenarios work with: instances, their events, their dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Unpack

from cluster_kit.testing.contracts.common import BaseBench
from cluster_kit.testing.contracts.event_queue.environment import Environment
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.message import DeadLetter
    from cluster_kit.plugin import Plugin
    from cluster_kit.settings.groups import EventQueueValues


class Bench(BaseBench[Environment]):
    """Instances of one application of its own, on the environment under test."""

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
        return await self.add(
            {
                "event_queue": {"url": await self.next_url(), **event_queue},
                "worker_mode": worker_mode,
            },
            app=app,
            start=start,
            plugins=plugins,
        )

    async def clusters(self, n: int, **event_queue: Unpack[EventQueueValues]) -> list[Cluster]:
        """Return so many started instances."""
        return [await self.cluster(**event_queue) for _ in range(n)]

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
