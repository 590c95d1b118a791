"""What scenarios work with: an instance, what it hears, a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.hearer import Hearer

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.contracts.transactions.environment import Environment, Work

CHANNEL = "catalogue"
_END = "end"


class Bench:
    """One instance that hears itself, in memory, and the database under test.

    Attributes:
        environment: the database.
        cluster: publishes.
        hearer: hears every sync message.
    """

    def __init__(self, environment: Environment, cluster: Cluster, factory: ClusterFactory) -> None:
        self.environment: Environment = environment
        self.cluster: Cluster = cluster
        self.hearer: Hearer = Hearer()
        self._factory = factory
        self._heard = 0

    @classmethod
    async def open(cls, environment: Environment) -> Bench:
        """Start an instance and make the tables."""
        environment.open()
        factory = ClusterFactory()
        [cluster] = await factory()
        bench = cls(environment, cluster, factory)
        await cluster.sync_messages.subscribe(CHANNEL, bench.hearer.handle)
        return bench

    async def publish(self, work: Work, message: object) -> str:
        """Publish in the transaction that `work` is in."""
        return await self.cluster.sync_messages.publish(
            CHANNEL, message, transaction=work.subject, skip_self=False
        )

    async def write(self, work: Work, *values: int) -> None:
        """Write each value and publish it."""
        for value in values:
            await work.write(value)
            await self.publish(work, value)

    async def write_inside_a_savepoint(self, work: Work) -> None:
        """Write 1, and 2 inside a savepoint that is left open."""
        await self.write(work, 1)
        await work.savepoint()
        await self.write(work, 2)

    async def heard(self) -> list[object]:
        """Return what was sent since the last call. All that was committed has begun to be."""
        await self.cluster.sync_messages.publish(CHANNEL, _END, skip_self=False)
        while True:
            messages = [heard.message for heard in self.hearer.heard]
            if _END in messages[self._heard :]:
                break
            await self.hearer.hears(len(messages) + 1)
        end = messages.index(_END, self._heard)
        since, self._heard = self._heard, end + 1
        return messages[since:end]

    def committed(self) -> list[int]:
        """Return what is in the database."""
        return self.environment.written()

    async def close(self) -> None:
        """Stop the instance and drop the tables."""
        await self._factory.close()
        await self.environment.close()
