"""What scenarios of all contracts work with: instances, what they report, their links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from cluster_kit.testing.contracts.common.environment import BaseEnvironment
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.plugin import Plugin
    from cluster_kit.settings.model import SettingsValues

E = TypeVar("E", bound=BaseEnvironment)

Report = tuple[str, Mapping[str, object]]
"""Name and fields of a telemetry event."""


class BaseBench(Generic[E]):
    """Instances of one application of its own, on the environment under test.

    A contract's bench adds `cluster`, which calls `add` with the settings of its capability.

    Attributes:
        app: name of the application.
        environment: the author's hands on the server.
        events: what every instance reported, in order.
    """

    def __init__(self, environment: E) -> None:
        self.environment: E = environment
        self.events: list[Report] = []
        self._factory = ClusterFactory()
        self.app: str = self._factory.name
        self._made = 0

    async def next_url(self) -> str:
        """Return the URL for one more instance."""
        index, self._made = self._made, self._made + 1
        return await self.environment.url(index)

    async def add(
        self,
        settings: SettingsValues,
        *,
        app: str | None = None,
        start: bool = True,
        plugins: Sequence[type[Plugin] | Plugin] = (),
    ) -> Cluster:
        """Return one more instance; its `settings` have the URL that `next_url` gave."""
        [cluster] = await self._factory(
            name=app or self.app, start=False, plugins=plugins, **settings
        )
        self.prepare(cluster)
        cluster.telemetry.subscribe(lambda event, fields: self.events.append((event, dict(fields))))
        if start:
            await cluster.start()
        return cluster

    def prepare(self, cluster: Cluster) -> None:
        """Have the environment do what it has to do before a start; a contract may add to that."""
        self.environment.prepare(cluster)

    def reports(self, event: str, **fields: object) -> list[Mapping[str, object]]:
        """Return all fields of every such event so far that had these."""
        return [
            told for name, told in self.events if name == event and fields.items() <= told.items()
        ]

    async def reported(self, event: str, **fields: object) -> Mapping[str, object]:
        """Wait until `event` was reported with these fields, and return all its fields."""
        return (await eventually(lambda: self.reports(event, **fields)))[0]

    def link_status(self, cluster: Cluster) -> str:
        """Return what `cluster` says of its adapter under test."""
        return cluster.health()["adapters"][self.environment.capability]["status"]

    @asynccontextmanager
    async def outage(self, cluster: Cluster) -> AsyncGenerator[None]:
        """Keep `cluster` off the server inside the block, from the moment it has noticed."""
        await self.environment.cut_off(cluster)
        try:
            await self.notices(cluster)
            yield
        finally:
            await self.environment.reconnect(cluster)

    async def notices(self, cluster: Cluster) -> None:
        """Wait until `cluster` knows that its link is broken."""
        await eventually(lambda: self.link_status(cluster) != "ok")

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
