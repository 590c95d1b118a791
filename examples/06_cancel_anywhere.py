"""A task is cancelled on whichever instance it runs: here if it is here, else by a broadcast.

Needs no server. The same on RabbitMQ: CLUSTER_KIT_AMQP_URL=amqp://guest:guest@localhost/
"""

from __future__ import annotations

import asyncio

from cluster_kit import Cluster, Plugin, Settings


class Reports(Plugin):
    """Builds reports; knows which of them it is building."""

    name = "reports"

    def __init__(self) -> None:
        self.unwanted: dict[str, asyncio.Event] = {}
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def load(self) -> None:
        self.cluster.event_queue.subscribe("reports.build", self._build, serves="reports:build")
        await self.cluster.pubsub.subscribe("reports.cancel", self._cancel)  # everywhere

    async def cancel(self, report: str) -> None:
        if not await self._cancel(report):
            await self.cluster.pubsub.publish("reports.cancel", report)

    async def _cancel(self, report: str) -> bool:
        if (unwanted := self.unwanted.get(report)) is not None:
            unwanted.set()
        return unwanted is not None

    async def _build(self, report: str) -> None:
        unwanted = self.unwanted[report] = asyncio.Event()
        self.begun.set()
        for _page in range(10_000):
            await asyncio.sleep(0.01)
            if unwanted.is_set():
                print(f"{report}: cancelled on {self.cluster.instance_id}")
                break
        del self.unwanted[report]
        self.ended.set()


async def main() -> None:
    web, worker = Reports(), Reports()
    first = Cluster("shop", plugins=[web], settings=Settings(instance_id="web", worker_mode="!"))
    second = Cluster("shop", plugins=[worker], settings=Settings(instance_id="worker"))
    async with first, second:
        await first.event_queue.publish("reports.build", "yearly")
        await worker.begun.wait()
        await web.cancel("yearly")
        await worker.ended.wait()


asyncio.run(main())

# Output:
# yearly: cancelled on worker
