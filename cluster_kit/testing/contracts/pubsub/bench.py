"""What scenarios work with: instances, what they report, their links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

from cluster_kit.testing.contracts.common import BaseBench
from cluster_kit.testing.contracts.pubsub.environment import Environment
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.plugin import Plugin
    from cluster_kit.settings.groups import PubSubValues, SyncMessagesValues


class Bench(BaseBench[Environment]):
    """Instances of one application of its own, on the environment under test."""

    async def cluster(
        self,
        *,
        app: str | None = None,
        start: bool = True,
        plugins: Sequence[type[Plugin] | Plugin] = (),
        worker_mode: str = "",
        sync_messages: SyncMessagesValues | None = None,
        **pubsub: Unpack[PubSubValues],
    ) -> Cluster:
        """Return one more instance; `pubsub` are settings of publish and subscribe."""
        return await self.add(
            {
                "pubsub": {"url": await self.next_url(), **pubsub},
                "sync_messages": sync_messages or {},
                "worker_mode": worker_mode,
            },
            app=app,
            start=start,
            plugins=plugins,
        )

    async def clusters(self, n: int, **pubsub: Unpack[PubSubValues]) -> list[Cluster]:
        """Return so many started instances."""
        return [await self.cluster(**pubsub) for _ in range(n)]

    @asynccontextmanager
    async def outage(self, cluster: Cluster) -> AsyncGenerator[None]:
        """Keep `cluster` off the broker inside the block, and wait until it is back."""
        async with super().outage(cluster):
            yield
        await eventually(lambda: self.link_status(cluster) == "ok")
