"""A plugin with long tasks. Its instance is stopped in the middle of one; another takes it over.

Needs no server. The same on RabbitMQ: CLUSTER_KIT_AMQP_URL=amqp://guest:guest@localhost/
"""

from __future__ import annotations

import asyncio

from cluster_kit import Cluster, Delivery, Plugin, Settings

SECONDS = {"first": 3600.0, "second": 0.01}  # how long a report takes on this instance


class Reports(Plugin):
    """Builds yearly reports."""

    name = "reports"

    async def load(self) -> None:
        """Subscribe before any task is taken."""
        self.begun, self.finished = asyncio.Event(), asyncio.Event()
        self.cluster.event_queue.subscribe("reports.build", self._build, timeout=2 * 3600)

    async def _build(self, year: int, delivery: Delivery) -> None:
        here = self.cluster.instance_id
        print(f"report {year}: begun on {here}, attempt {delivery.attempt}")
        self.begun.set()
        try:
            await asyncio.sleep(SECONDS[here])
        except asyncio.CancelledError:
            print(f"report {year}: put aside on {here}, {delivery.signal.reason}")
            raise  # or return, when the task is as good as done
        print(f"report {year}: ready on {here}")
        self.finished.set()


async def main() -> None:
    reports = {name: Reports() for name in SECONDS}
    first, second = (
        Cluster("shop", plugins=[plugin], settings=Settings(instance_id=name))
        for name, plugin in reports.items()
    )
    await first.start()
    await first.event_queue.publish("reports.build", 2026, message_id="report-2026")
    await reports["first"].begun.wait()

    async with second:
        unfinished = await first.stop(timeout=0.1)  # what SIGTERM does under `cluster-kit run`
        await reports["second"].finished.wait()
    print("cut short on first:", ", ".join(unfinished))


asyncio.run(main())

# Output:
# report 2026: begun on first, attempt 1
# report 2026: put aside on first, shutdown
# report 2026: begun on second, attempt 1
# report 2026: ready on second
# cut short on first: report-2026
