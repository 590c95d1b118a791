"""Locks under measurement: alone, and wanted by many.

``python -m benchmarks.locks redis://127.0.0.1:6379 amqp://127.0.0.1 …`` prints a table, and with
``--json`` the figures. On Redis redis-py's own lock is measured in the same run, in turns with this
library, and cashews' where it is installed.

- *alone*: acquire and release, one after the other, by one task: milliseconds, the median, and the
  processor's share of it.
- *wanted*: 32 tasks, one key, sections of 5 ms: sections a second, and how long the lock is
  nobody's between two of them, median and 99 of 100.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from cluster_kit import Cluster, Settings

Hold = Callable[[str], AbstractAsyncContextManager[object]]
"""Holds the lock of a key."""

TASKS, SECTION_SECONDS = 32, 0.005
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one peer. Milliseconds, but sections a second."""

    peer: str
    alone: float
    alone_cpu: float
    sections: float
    handover: float
    handover_worst: float


@asynccontextmanager
async def cluster_kit(url: str) -> AsyncIterator[Hold]:
    """This library."""
    async with Cluster("bench", settings=Settings(locks={"url": url})) as cluster:
        yield lambda key: cluster.locks.hold(key, timeout=600)


@asynccontextmanager
async def redis_py(url: str) -> AsyncIterator[Hold]:
    """The lock of the driver, as its documents use it."""
    from redis.asyncio import Redis

    client: Any = Redis.from_url(url)
    yield lambda key: client.lock(f"bench-{key}", timeout=30)
    await client.aclose()


@asynccontextmanager
async def cashews(url: str) -> AsyncIterator[Hold]:
    """The lock of a caching library."""
    from cashews import Cache

    cache = Cache()
    cache.setup(url)
    yield lambda key: cache.lock(f"bench-{key}", expire="30s")
    await cache.close()


Peer = Callable[[str], AbstractAsyncContextManager[Hold]]


async def alone(hold: Hold, times: int) -> tuple[list[float], float]:
    """Return the seconds of each acquire and release, and the processor's seconds of one."""
    key, taken, cpu = uuid.uuid4().hex, list[float](), time.process_time()
    for _ in range(times):
        begun = time.perf_counter()
        async with hold(key):
            pass
        taken.append(time.perf_counter() - begun)
    return taken, (time.process_time() - cpu) / times


async def wanted(hold: Hold, seconds: float) -> tuple[float, list[float]]:
    """Return sections a second, and the seconds between the end of one and the next."""
    key, marks = uuid.uuid4().hex, list[tuple[float, float]]()
    end = time.perf_counter() + seconds

    async def work() -> None:
        while time.perf_counter() < end:
            async with hold(key):
                entered = time.perf_counter()
                await asyncio.sleep(SECTION_SECONDS)
                marks.append((entered, time.perf_counter()))

    begun = time.perf_counter()
    async with asyncio.timeout(20 * seconds + 60), asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(work())
    marks.sort()
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(marks)]
    return len(marks) / (time.perf_counter() - begun), gaps


async def measure(url: str, peers: dict[str, Peer], seconds: float) -> list[Figures]:
    """Measure all, in turns, so that what else the machine does meets all of them."""
    single: dict[str, list[float]] = {name: [] for name in peers}
    cpu: dict[str, list[float]] = {name: [] for name in peers}
    rates: dict[str, list[float]] = {name: [] for name in peers}
    gaps: dict[str, list[float]] = {name: [] for name in peers}
    async with contextlib.AsyncExitStack() as stack:
        holds = {name: await stack.enter_async_context(make(url)) for name, make in peers.items()}
        for hold in holds.values():
            await alone(hold, 20)
        for _ in range(ROUNDS):
            for name, hold in holds.items():
                taken, used = await alone(hold, 100)
                single[name] += taken
                cpu[name].append(used)
        for _ in range(2):
            for name, hold in holds.items():
                rate, between = await wanted(hold, seconds)
                rates[name].append(rate)
                gaps[name] += between
    return [
        Figures(
            peer=name,
            alone=1000 * statistics.median(single[name]),
            alone_cpu=1000 * statistics.median(cpu[name]),
            sections=statistics.mean(rates[name]),
            handover=1000 * statistics.median(gaps[name]),
            handover_worst=1000 * statistics.quantiles(gaps[name], n=100)[98],
        )
        for name in peers
    ]


def peers_of(url: str) -> dict[str, Peer]:
    """Return who can be measured on a server."""
    found: dict[str, Peer] = {"cluster-kit": cluster_kit}
    if url.startswith("redis"):
        found["redis-py"] = redis_py
        with contextlib.suppress(ImportError):
            import cashews as _  # noqa: F401

            found["cashews"] = cashews
    return found


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description="Locks: time alone, and handover.")
    parser.add_argument("urls", nargs="+", help="of Redis, memcached or RabbitMQ")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round with 32 tasks")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for url in given.urls:
        figures = asyncio.run(measure(url, peers_of(url), given.seconds))
        server = url.partition(":")[0]
        if given.json:
            print(json.dumps({"server": server, "figures": [asdict(f) for f in figures]}))
            continue
        print(f"| {server} | alone, ms | of it CPU | sections/s | handover p50, ms | p99 |")
        print("| --- | --- | --- | --- | --- | --- |")
        for f in figures:
            print(
                f"| {f.peer} | {f.alone:.2f} | {f.alone_cpu:.2f} | {f.sections:.0f} | "
                f"{f.handover:.1f} | {f.handover_worst:.0f} |"
            )


if __name__ == "__main__":
    main()
