"""Many processes under one lock while holders are killed and stopped and connections are cut.

``python -m integration.load.locks --backend redis --processes 8 --sections 200``

Each process reads a number, thinks, and writes it back raised by one, under one lock. Meanwhile,
again and again, a process is killed (SIGKILL) and replaced, one is stopped (SIGSTOP) for longer
than its ttl, and all connections to the server of the locks are cut. The number is kept by a
recorder that checks fences. At the end it has to be exactly the number of sections, and no two may
have worked on it together. Exit code 0 when that is so, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import sys
import tempfile
import uuid
from asyncio.subprocess import Process
from collections import Counter
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from cluster_kit import Cluster, Settings
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import (
    MEMCACHED,
    REDIS,
    NodeUnavailableError,
    PlainServer,
    RabbitServer,
    start_plain,
    start_rabbitmq,
)
from cluster_kit.testing.waiting import eventually
from integration.load.locks_recorder import Book, Recorder
from integration.load.locks_worker import work

TTL = {"redis": 1.0, "memcached": 3.0, "memory": 1.0, "amqp": 2.5}
"""Seconds, by backend. On RabbitMQ a stopped process is taken for dead by then."""

HARM = ("stopped", "killed", "cut")
_LONGEST_SECONDS = 1800.0
_LOOKS = 300


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done. `rounds`: how often each fault happens, at least."""

    backend: str
    processes: int = 8
    sections: int = 200
    faults: bool = True
    rounds: int = 1
    seed: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What became of it. `faults` counts what was done to the processes."""

    plan: Plan
    book: Book
    seconds: float
    faults: Counter[str] = field(default_factory=Counter[str])

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.book.exact and self.book.total >= self.plan.processes * self.plan.sections

    def __str__(self) -> str:
        plan, book = self.plan, self.book
        done = ", ".join(f"{n} {name}" for name, n in sorted(self.faults.items())) or "none"
        return (
            f"{plan.backend}: {plan.processes} processes x {plan.sections} sections in "
            f"{self.seconds:.1f} s; number {book.number}, writes {book.total}, overlaps "
            f"{book.overlaps}, locks lost {book.lost}, stale refused {book.refused}; faults: {done}"
            f" -> {'good' if self.good else 'BROKEN'}"
        )


class Workers:
    """The processes, by slot."""

    def __init__(self, port: int, url: str, ttl: float, folder: Path) -> None:
        self._arguments = (str(port), url, ttl)
        self._folder = folder
        self._app = f"load-{uuid.uuid4().hex[:8]}"
        self.running: dict[int, Process] = {}

    async def start(self, slot: int) -> None:
        port, url, ttl = self._arguments
        environment = {**os.environ, "CLUSTER_KIT_APP": self._app, "CLUSTER_KIT_LOCKS__URL": url}
        with (self._folder / f"worker-{slot}.log").open("ab") as log:
            self.running[slot] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "integration.load.locks_worker"),
                *(port, str(slot), str(ttl)),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def kill(self, slot: int) -> None:
        process = self.running[slot]
        if process.returncode is None:
            process.kill()
        await process.wait()

    def ended(self) -> bool:
        return all(process.returncode is not None for process in self.running.values())

    async def close(self) -> None:
        for slot in self.running:
            await self.kill(slot)


async def torment(
    workers: Workers,
    recorder: Recorder,
    proxy: FaultProxy,
    ttl: float,
    faults: Counter[str],
    chance: random.Random,
) -> None:
    """Do one thing after the other to who is inside, until cancelled.

    A killed holder leaves the lock taken for its ttl; the cut that follows gives that time to end.
    """
    await eventually(lambda: recorder.book.fences)  # who has not begun has nothing to lose
    for what in itertools.cycle(HARM):
        await asyncio.sleep(chance.uniform(0.5, 1.0) * ttl)
        alive = [s for s, process in workers.running.items() if process.returncode is None]
        if not alive:
            return
        for _ in range(_LOOKS):
            if recorder.book.inside in alive:
                break
            await asyncio.sleep(0.001)
        slot = recorder.book.inside if recorder.book.inside in alive else chance.choice(alive)
        if what == "cut":
            proxy.cut()
        elif what == "killed":
            await workers.kill(slot)
            await workers.start(slot)
        else:
            process = workers.running[slot]
            with suppress(ProcessLookupError):  # it ended just now
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(1.5 * ttl)
                process.send_signal(signal.SIGCONT)
        faults[what] += 1


async def run_processes(plan: Plan, url: str, folder: Path) -> Outcome:
    """Run it on a server."""
    ttl, chance, faults = TTL[plan.backend], random.Random(plan.seed), Counter[str]()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    quick = "?heartbeat=1" if plan.backend == "amqp" else ""  # who is dead is known in 3 s

    def enough() -> bool:
        return not plan.faults or all(faults[what] >= plan.rounds for what in HARM)

    async with (
        Recorder(plan.sections, enough) as recorder,
        FaultProxy(url) as proxy,
        AsyncExitStack() as stack,
    ):
        workers = Workers(recorder.port, f"{proxy.url}{quick}", ttl, folder)
        stack.push_async_callback(workers.close)
        for slot in range(plan.processes):
            await workers.start(slot)
        async with asyncio.TaskGroup() as group:
            harm = group.create_task(torment(workers, recorder, proxy, ttl, faults, chance))
            if not plan.faults:
                harm.cancel()
            await eventually(workers.ended, timeout=_LONGEST_SECONDS)
            harm.cancel()
    return Outcome(plan=plan, book=recorder.book, seconds=loop.time() - begun, faults=faults)


async def run_in_memory(plan: Plan) -> Outcome:
    """Run it in this process: an instance for each, whose tasks are cancelled instead of killed."""
    recorder, chance, faults = Recorder(plan.sections), random.Random(plan.seed), Counter[str]()
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def ask(line: str) -> str:
        await asyncio.sleep(0)
        return recorder.answer(line)

    async def slot(number: int) -> None:
        settings = Settings(locks={"url": hub})
        async with Cluster("load", settings=settings) as cluster:
            while await ask(f"more {number}") == "yes":
                try:
                    limit = chance.uniform(0.05, 0.2) if plan.faults else None
                    async with asyncio.timeout(limit):
                        await work(cluster, ask, number, TTL["memory"])
                except TimeoutError:
                    faults["cancelled"] += 1

    hub = f"memory://{uuid.uuid4().hex}"
    async with asyncio.TaskGroup() as group:
        for number in range(plan.processes):
            group.create_task(slot(number))
    return Outcome(plan=plan, book=recorder.book, seconds=loop.time() - begun, faults=faults)


def run(plan: Plan, url: str | None, folder: Path) -> Outcome:
    """Run it on the server at `url`, or on one as the tests would use."""
    if plan.backend == "memory":
        return asyncio.run(run_in_memory(plan))
    if url is not None:
        return asyncio.run(run_processes(plan, url, folder))
    with closing(start(plan.backend)) as server:
        url = server.new_url() if isinstance(server, RabbitServer) else server.url
        return asyncio.run(run_processes(plan, url, folder))


def start(backend: str) -> RabbitServer | PlainServer:
    """Return a server as the tests would use it."""
    if backend == "amqp":
        return start_rabbitmq()
    return start_plain(REDIS if backend == "redis" else MEMCACHED)


def main() -> int:
    parser = argparse.ArgumentParser(description="Locks under load and faults.")
    parser.add_argument("--backend", choices=[*TTL], action="append", help="by default all")
    parser.add_argument("--url", help="of the server; by default the one the tests would use")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--sections", type=int, default=200, help="of each process")
    parser.add_argument("--calm", action="store_true", help="without faults")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for backend in given.backend or TTL:
            plan = Plan(
                backend=backend,
                processes=given.processes,
                sections=given.sections,
                faults=not given.calm,
                seed=given.seed,
            )
            try:
                outcome = run(plan, given.url, Path(folder))
            except NodeUnavailableError as exc:
                sys.exit(str(exc))
            Console(soft_wrap=True).print(str(outcome), highlight=False)
            good = good and outcome.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
