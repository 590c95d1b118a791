"""What scenarios work with: instances, what they report, and an eye on who is inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

from cluster_kit.errors import LockUnavailable
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.locks import Lease
    from cluster_kit.settings.groups import LockValues
    from cluster_kit.testing.contracts.locks.environment import Environment

Event = tuple[str, Mapping[str, object]]


class Bench:
    """Instances of one application of its own, on the environment under test.

    Attributes:
        environment: the author's hands on the server.
        events: what every instance reported, in order.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment: Environment = environment
        self.events: list[Event] = []
        self._factory = ClusterFactory()
        self._made = 0

    async def cluster(
        self, *, app: str | None = None, start: bool = True, **locks: Unpack[LockValues]
    ) -> Cluster:
        """Return one more instance; `locks` are settings of its locks."""
        url = await self.environment.url(self._made)
        self._made += 1
        [cluster] = await self._factory(name=app, start=False, locks={"url": url, **locks})
        self.environment.prepare(cluster)
        cluster.telemetry.subscribe(lambda event, fields: self.events.append((event, dict(fields))))
        if start:
            await cluster.start()
        return cluster

    async def clusters(self, n: int, **locks: Unpack[LockValues]) -> list[Cluster]:
        """Return so many started instances."""
        return [await self.cluster(**locks) for _ in range(n)]

    def reports(self, event: str) -> list[Mapping[str, object]]:
        """Return the fields of every such event so far."""
        return [fields for name, fields in self.events if name == event]

    async def free(self, cluster: Cluster, key: str, *, timeout: float = 20.0) -> None:
        """Wait until nobody holds a lock."""

        async def is_free() -> bool:
            try:
                return await cluster.locks.inspect(key) is None
            except LockUnavailable:  # a link that was cut is not back yet
                return False

        await eventually(is_free, timeout=timeout)

    async def waiting(self, *clusters: Cluster, n: int = 1) -> None:
        """Wait until so many acquisitions are under way."""
        await eventually(lambda: sum(c.locks.stats().waiting for c in clusters) == n)

    @asynccontextmanager
    async def outage(self, cluster: Cluster) -> AsyncGenerator[None]:
        """Keep `cluster` off the server inside the block."""
        await self.environment.cut_off(cluster)
        try:
            yield
        finally:
            await self.environment.reconnect(cluster)

    async def close(self) -> None:
        """Stop every instance.

        Raises:
            ExceptionGroup: an instance did not stop well.
            AssertionError: an instance left tasks behind.
        """
        await self._factory.close()


class Room:
    """What a lock protects: knows who was in it, and whether two were at once.

    Attributes:
        fences: of everybody who came in, in order.
        most: inside at once.
    """

    def __init__(self) -> None:
        self.fences: list[int] = []
        self.most: int = 0
        self._inside = 0

    async def visit(self, lease: Lease, seconds: float = 0.002) -> None:
        """Be inside for a while."""
        self.fences.append(lease.fence)
        self._inside += 1
        self.most = max(self.most, self._inside)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._inside -= 1
