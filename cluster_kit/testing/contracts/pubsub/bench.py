"""What scenarios work with: instances, what they report, their links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.plugin import Plugin
    from cluster_kit.settings.groups import PubSubValues, SyncMessagesValues
    from cluster_kit.testing.contracts.pubsub.environment import Environment

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
        plugins: Sequence[type[Plugin] | Plugin] = (),
        worker_mode: str = "",
        sync_messages: SyncMessagesValues | None = None,
        **pubsub: Unpack[PubSubValues],
    ) -> Cluster:
        """Return one more instance; `pubsub` are settings of publish and subscribe."""
        url = await self.environment.url(self._made)
        self._made += 1
        [cluster] = await self._factory(
            name=app or self.app,
            start=False,
            plugins=plugins,
            worker_mode=worker_mode,
            pubsub={"url": url, **pubsub},
            sync_messages=sync_messages or {},
        )
        self.environment.prepare(cluster)
        cluster.telemetry.subscribe(lambda event, fields: self.events.append((event, dict(fields))))
        if start:
            await cluster.start()
        return cluster

    async def clusters(self, n: int, **pubsub: Unpack[PubSubValues]) -> list[Cluster]:
        """Return so many started instances."""
        return [await self.cluster(**pubsub) for _ in range(n)]

    def reports(self, event: str) -> list[Mapping[str, object]]:
        """Return the fields of every such event so far."""
        return [fields for name, fields in self.events if name == event]

    @asynccontextmanager
    async def outage(self, cluster: Cluster) -> AsyncGenerator[None]:
        """Keep `cluster` off the broker inside the block, from the moment it has noticed."""
        await self.environment.cut_off(cluster)
        try:
            await eventually(lambda: link_status(cluster) != "ok")
            yield
        finally:
            await self.environment.reconnect(cluster)
        await eventually(lambda: link_status(cluster) == "ok")

    async def close(self) -> None:
        """Stop every instance.

        Raises:
            ExceptionGroup: an instance did not stop well.
            AssertionError: an instance left tasks behind.
        """
        await self._factory.close()


def link_status(cluster: Cluster) -> object:
    """Return what `cluster` says of its adapter for publish and subscribe."""
    return cluster.health()["adapters"]["pubsub"]["status"]
