"""What scenarios work with: instances, what they report, and an eye on who is inside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Unpack

from cluster_kit.errors import LockUnavailable
from cluster_kit.testing.contracts.common import BaseBench
from cluster_kit.testing.contracts.locks.environment import Environment
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.locks import Lease
    from cluster_kit.settings.groups import LockValues


class Bench(BaseBench[Environment]):
    """Instances of one application of its own, on the environment under test."""

    async def cluster(
        self, *, app: str | None = None, start: bool = True, **locks: Unpack[LockValues]
    ) -> Cluster:
        """Return one more instance; `locks` are settings of its locks."""
        url = await self.next_url()
        return await self.add({"locks": {"url": url, **locks}}, app=app, start=start)

    async def clusters(self, n: int, **locks: Unpack[LockValues]) -> list[Cluster]:
        """Return so many started instances."""
        return [await self.cluster(**locks) for _ in range(n)]

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

    async def notices(self, cluster: Cluster) -> None:
        """Wait for nothing: the next call is what notices."""


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
