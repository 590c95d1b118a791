"""Tasks at full speed for a long time, while one connection after another is closed at random.

``python integration/load/soak.py --minutes 30``

One process publishes, one runs what it publishes. Every few seconds one of their connections is
closed, whichever chance picks. At the end every task whose publish returned has to have been run,
and neither process may have grown: memory is where it was after the warm-up, and at rest there are
no more asyncio tasks and futures than at the start.

Without ``--url`` it uses a RabbitMQ as the tests do: the one of ``CLUSTER_KIT_TEST_AMQP_URL``, a
container, or a node that it starts. On a broker that takes no commands from here, connections are
closed by a proxy in between, which costs speed. The exit code is 0 when all is as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster_kit.testing.servers import NodeUnavailableError, RabbitServer, start_rabbitmq
from cluster_kit.testing.servers.node import NodeCommandError
from integration.load.faults import Faults, open_faults
from integration.load.marks import Marks
from integration.load.report import table_of
from integration.load.soak_process import CONFIRMED, PROCESSED
from integration.load.soak_report import Result, judged
from integration.load.vitals import memory

_MOST_PER_SECOND = 40_000
"""Tasks there is room for in the files of marks, which are sparse."""

_LINE_BYTES = 1 << 20
_END_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, and how much is done to it.

    Attributes:
        seconds: of publishing.
        pause: seconds between two closed connections, least and most.
        patience: seconds without any progress after which the rest counts as lost.
        seed: of the chance.
        rate: tasks a second at most; 0: as many as there can be.
        interval: seconds between two lines on how it goes.
    """

    seconds: float = 1_800.0
    pause: tuple[float, float] = (2.0, 8.0)
    patience: float = 60.0
    seed: int = 0
    rate: float = 0.0
    interval: float = 60.0

    @property
    def capacity(self) -> int:
        """Tasks there is room for."""
        return int(self.seconds * (self.rate or _MOST_PER_SECOND)) + 1


class Side:
    """One of the two processes.

    Args:
        name: of it, for people.
        process: runs.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process
        self.start: dict[str, Any] = {}
        self.end: dict[str, Any] = {}

    @property
    def memory(self) -> float:
        """MB it has now."""
        return memory(self._process.pid)

    async def ready(self) -> None:
        """Wait until it has started."""
        self.start = await self._line()

    async def stop(self) -> None:
        """Ask it to end and wait for what it has to say."""
        self._process.terminate()
        async with asyncio.timeout(_END_SECONDS):
            self.end = await self._line()
            await self._process.wait()

    async def _line(self) -> dict[str, Any]:
        line = await self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise RuntimeError(f"the {self.name} has ended by itself, see its log")
        told: dict[str, Any] = json.loads(line)
        return told


async def soak(
    plan: Plan, faults: Faults, folder: Path, tell: Callable[[str], None] = lambda _: None
) -> Result:
    """Run it, and tell from time to time how it goes; marks and logs are left in `folder`."""
    confirmed, processed = (Marks(folder / name, plan.capacity) for name in (CONFIRMED, PROCESSED))
    app = f"soak-{uuid.uuid4().hex[:8]}"
    async with (
        _process("work", plan, faults.url, app, folder) as worker,
        _process("publish", plan, faults.url, app, folder) as publisher,
    ):
        for side in (worker, publisher):
            await side.ready()
        looks = asyncio.create_task(
            _look(plan.interval, tell, confirmed, processed, (publisher, worker))
        )
        closed = await _close_connections(plan, faults)
        looks.cancel()
        await publisher.stop()
        await _until_processed(confirmed, processed, plan.patience)
        await worker.stop()
    lost = confirmed.missing(processed)
    return Result(
        confirmed=confirmed.different,
        processed=processed.different,
        again=processed.again,
        lost=lost[:20],
        lost_count=len(lost),
        closed=closed,
        closed_by=faults.closed_by,
        seconds=plan.seconds,
        sides=[row for s in (publisher, worker) for row in judged(s.name, s.start, s.end)],
    )


@asynccontextmanager
async def _process(role: str, plan: Plan, url: str, app: str, folder: Path) -> AsyncIterator[Side]:
    command = ["-m", "integration.load.soak_process", role, str(folder), str(plan.capacity)]
    command += ["--rate", str(plan.rate)]
    environment = {
        **os.environ,
        "CLUSTER_KIT_APP": app,
        "CLUSTER_KIT_EVENT_QUEUE__URL": url,
        "CLUSTER_KIT_INSTANCE_ID": role,
    }
    with (folder / f"{role}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=environment, stdout=PIPE, stderr=log, limit=_LINE_BYTES
        )
    try:
        yield Side("publisher" if role == "publish" else "worker", process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _look(
    interval: float,
    tell: Callable[[str], None],
    confirmed: Marks,
    processed: Marks,
    sides: tuple[Side, ...],
) -> None:
    began = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(interval)
        sizes = ", ".join(f"{side.name} {side.memory:.1f} MB" for side in sides)
        tell(
            f"{asyncio.get_running_loop().time() - began:5.0f} s: {confirmed.different} confirmed, "
            f"{processed.different} run, {processed.again} again; {sizes}"
        )


async def _close_connections(plan: Plan, faults: Faults) -> int:
    loop, chance, closed = asyncio.get_running_loop(), random.Random(plan.seed), 0
    end = loop.time() + plan.seconds
    while (left := end - loop.time()) > 0:
        pause = chance.uniform(*plan.pause)
        await asyncio.sleep(min(pause, left))
        if pause < left:
            with suppress(NodeCommandError):  # a machine too busy to close one is no failure
                closed += await faults.close_one(chance)
    return closed


async def _until_processed(confirmed: Marks, processed: Marks, patience: float) -> None:
    """Wait until all is run, or nothing moves any more."""
    loop = asyncio.get_running_loop()
    moved, before = loop.time(), -1
    while processed.different < confirmed.different and loop.time() - moved < patience:
        if processed.different != before:
            moved, before = loop.time(), processed.different
        await asyncio.sleep(0.2)


async def measure(plan: Plan, url: str, server: RabbitServer | None, folder: Path) -> Result:
    async with open_faults(url, server) as faults:
        return await soak(plan, faults, folder, partial(print, flush=True))


def _on_broker(plan: Plan, url: str | None, folder: Path, *, proxy: bool) -> Result:
    if url:
        return asyncio.run(measure(plan, url, None, folder))
    try:
        server = start_rabbitmq()
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    try:
        given = None if proxy else server
        return asyncio.run(measure(plan, server.new_url(), given, folder))
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="A long run with broken connections.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the chance")
    parser.add_argument("--rate", type=float, default=0.0, help="most tasks a second")
    parser.add_argument("--proxy", action="store_true", help="close by a proxy all the same")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep marks and logs here")
    given = parser.parse_args()
    plan = Plan(seconds=given.minutes * 60, seed=given.seed, rate=given.rate)
    console = Console()
    console.print(f"seed {plan.seed}")
    with tempfile.TemporaryDirectory(prefix="cluster-kit-soak-") as temporary:
        folder: Path = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = _on_broker(plan, given.url, folder, proxy=given.proxy)
    console.print(table_of(result.rows()))
    if result.lost:
        console.print(f"lost: {', '.join(map(str, result.lost))} ...")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
