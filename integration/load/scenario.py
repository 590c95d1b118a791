"""The run itself: workers, publishes, faults, and the count at the end."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster_kit import Cluster, Settings
from cluster_kit.testing.waiting import eventually
from integration.load.faults import Faults
from integration.load.fleet import Fleet
from integration.load.history import PUBLISHER, History
from integration.load.journal import Journal, path_of, read
from integration.load.publisher import LANES, Publisher
from integration.load.report import Report
from integration.load.verdict import judge
from integration.load.worker import CHANNEL

CONCURRENCY = 8
"""Tasks a worker runs at a time."""

LOAD = 1.1
"""How much more is published than the workers can do, so that a fault meets them busy."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much load, over which time.

    Attributes:
        tasks: to publish, or more if the faults take longer.
        workers: processes, two at least.
        seconds: that publishing `tasks` takes.
        patience: seconds without any progress after which the rest counts as lost.
        folder: where the journals and logs are left; None for a temporary one.
    """

    tasks: int = 20_000
    workers: int = 4
    seconds: float = 50.0
    patience: float = 30.0
    folder: Path | None = None

    @property
    def rate(self) -> float:
        """Publishes a second."""
        return self.tasks / self.seconds

    @property
    def task_seconds(self) -> float:
        """How long a task takes."""
        return LOAD * self.workers * CONCURRENCY / self.rate


async def run(plan: Plan, faults: Faults) -> Report:
    """Do all of it against the broker at `faults.url`."""
    if plan.workers < 2:
        raise ValueError("one worker is killed and another drained: at least 2 are needed")
    if plan.folder is not None:
        return await Scenario(plan, faults, plan.folder).run()
    with tempfile.TemporaryDirectory(prefix="cluster-kit-load-") as folder:
        return await Scenario(plan, faults, Path(folder)).run()


class Scenario:
    """One run in one folder."""

    def __init__(self, plan: Plan, faults: Faults, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*.journal")):
            raise ValueError(f"{folder} has the journals of another run")
        self._plan = plan
        self._faults = faults
        self._folder = folder
        self._journal = Journal(path_of(folder, PUBLISHER))
        self._app = f"load-{uuid.uuid4().hex[:8]}"
        self._exit_codes: dict[str, int] = {}

    async def run(self) -> Report:
        """Return what it has shown."""
        fleet = Fleet(self._folder, self._faults.url, self._app, concurrency=CONCURRENCY)
        try:
            async with fleet, self._publishing_cluster() as cluster:
                names = [await fleet.start() for _ in range(self._plan.workers)]
                for name in names:
                    await fleet.ready(name)
                await self._under_load(fleet, cluster, names)
                await self._until_processed(cluster)
                for name in tuple(fleet.running):
                    self._exit_codes[name] = await fleet.drain(name)
                return await self._report(cluster, drained=names[1])
        finally:
            self._journal.close()

    @asynccontextmanager
    async def _publishing_cluster(self) -> AsyncIterator[Cluster]:
        settings = Settings(event_queue={"url": self._faults.url}, instance_id=PUBLISHER)
        cluster = Cluster(self._app, settings=settings)
        cluster.telemetry.subscribe(self._journal.observe)
        async with cluster:
            yield cluster

    # --- load and faults ---

    async def _under_load(self, fleet: Fleet, cluster: Cluster, names: list[str]) -> None:
        publisher = Publisher(
            cluster,
            self._journal,
            tasks=self._plan.tasks,
            rate=self._plan.rate,
            payload={"seconds": self._plan.task_seconds},
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.run(), name="publisher")
            await self._another_fifth(publisher)
            await self._close_connections("first closing")
            await self._another_fifth(publisher)
            await self._kill(fleet, names[0])
            await self._another_fifth(publisher)
            group.create_task(self._drain_at_loss(fleet, cluster, names[1]), name="drain")
            await self._close_connections("second closing")
            publisher.finish()

    async def _another_fifth(self, publisher: Publisher) -> None:
        enough = publisher.begun + self._plan.tasks / 5
        patience = self._plan.seconds + self._plan.patience
        await eventually(lambda: publisher.begun >= enough, timeout=patience, interval=0.05)

    async def _close_connections(self, name: str) -> None:
        self._journal.write("fault", detail=name)
        await self._faults.close_connections()
        self._journal.write("fault over", detail=name)

    async def _kill(self, fleet: Fleet, name: str) -> None:
        await fleet.kill(name)
        self._journal.write("killed", detail=name)
        await fleet.ready(await fleet.start())

    async def _drain_at_loss(self, fleet: Fleet, cluster: Cluster, name: str) -> None:
        """Drain a worker at the moment in which the connections are closed."""
        lost = asyncio.Event()
        forget = cluster.telemetry.subscribe(
            lambda event, _: lost.set() if event == "connection.lost" else None
        )
        await lost.wait()
        forget()
        self._exit_codes[name] = await fleet.drain(name)

    # --- the end ---

    async def _until_processed(self, cluster: Cluster) -> None:
        """Wait until all that was confirmed is processed, or nothing moves any more."""
        moved, before = asyncio.get_running_loop().time(), -1
        while asyncio.get_running_loop().time() - moved < self._plan.patience:
            history = await asyncio.to_thread(self._history)
            ready = await self._ready(cluster)
            if not ready and history.confirmed() <= history.finished():
                return
            if len(history.finished()) != before:
                moved, before = asyncio.get_running_loop().time(), len(history.finished())
            await asyncio.sleep(0.5)

    async def _ready(self, cluster: Cluster) -> int:
        depth = await cluster.event_queue.depth(CHANNEL)
        return depth.ready if depth else 0

    def _history(self) -> History:
        return History.of(read(self._folder))

    async def _report(self, cluster: Cluster, *, drained: str) -> Report:
        history = self._history()
        others = {name: code for name, code in self._exit_codes.items() if name != drained}
        return Report(
            published=len(history.publishes),
            confirmed=len(history.confirmed()),
            failed=len(history.failed()),
            processed=len(history.finished()),
            closed_by=self._faults.closed_by,
            connections_lost=sum(loss.what == "connection" for loss in history.losses),
            dead=await cluster.event_queue.dead_letters(CHANNEL).count(),
            # All workers are gone: what they had not settled is back and is counted too.
            left=await self._ready(cluster),
            drained_exit=self._exit_codes[drained],
            other_exits=sorted(set(others.values())),
            verdict=judge(history, concurrency=CONCURRENCY, publishing=LANES),
        )
