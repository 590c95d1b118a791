"""What an instance of the demo runs: a part for each capability, each with orders it obeys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from cluster_kit.cli.demo.broadcasts import Hearing
from cluster_kit.cli.demo.caching import Reading
from cluster_kit.cli.demo.journal import Event, Kind, Reporter
from cluster_kit.cli.demo.locking import Locking
from cluster_kit.cli.demo.task_handlers import TaskHandlers
from cluster_kit.supervisor import Supervisor

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Order
    from cluster_kit.cluster import Cluster


LOOK = 0.02
"""Seconds between two looks at the connections."""


class Part(Protocol):
    """What an instance does with one capability.

    Attributes:
        orders: what it does when told to, by name.
    """

    orders: Mapping[str, Order]

    async def prepare(self) -> None:
        """Subscribe; called before the cluster starts."""
        ...


class Workload:
    """Everything one instance does, and reports.

    Args:
        cluster: of the instance.
        report: takes the events.
        die: lets this instance die at once, without a word.
    """

    def __init__(
        self, cluster: Cluster, report: Callable[[Event], None], die: Callable[[], None]
    ) -> None:
        self._cluster = cluster
        self._reporter = Reporter(cluster.instance_id, report)
        self._supervisor = Supervisor()
        self._parts: tuple[Part, ...] = (
            TaskHandlers(cluster, self._reporter, die),
            Hearing(cluster, self._reporter),
            Reading(cluster, self._reporter, self._supervisor),
            Locking(cluster, self._reporter),
        )
        self._orders = {name: order for part in self._parts for name, order in part.orders.items()}

    async def prepare(self) -> None:
        """Subscribe; called before the cluster starts."""
        for part in self._parts:
            await part.prepare()

    def obey(self, order: str, about: Mapping[str, object]) -> None:
        """Begin what is ordered; it reports what comes of it."""
        self._supervisor.spawn(self._try(order, about), name=f"order {order}")

    async def _try(self, order: str, about: Mapping[str, object]) -> None:
        try:
            await self._orders[order](about)
        except Exception as exc:  # noqa: BLE001 - reported, whatever it is
            self.note("stumbled", f"{order}: {type(exc).__name__}: {exc}")

    def note(self, kind: Kind, detail: str = "") -> None:
        """Report something that concerns no capability."""
        self._reporter.note(kind, detail=detail)

    async def note_mended(self) -> None:
        """Report ``mended`` once every connection is up again."""
        while self._cluster.health()["status"] != "ok":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(LOOK)
        self.note("mended")

    async def close(self) -> None:
        """Cancel what was ordered and goes on."""
        await self._supervisor.close()
