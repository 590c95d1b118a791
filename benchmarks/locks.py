"""Locks under measurement: alone, and wanted by many.

``python -m benchmarks.locks redis://127.0.0.1:6379 amqp://127.0.0.1 …`` prints tables, and with
``--json`` the figures. On Redis redis-py's own lock is measured in the same run, in turns with this
library, and cashews' where it is installed.

- *alone*: acquire and release, one after the other, by one task: milliseconds, the median, and the
  processor's share of it.
- *wanted*: 128 sections of 5 ms under one key, the same number for each of 2, 8 or 32 tasks, until
  the last is through: sections a second, how long the lock is nobody's between two of them, and how
  long a task waited for one at most. 200 a second are all that fit into a second.
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
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from cluster_kit import Cluster, Settings

Hold = Callable[[str], AbstractAsyncContextManager[object]]
"""Holds the lock of a key."""

CROWDS, SECTION_SECONDS = (2, 8, 32), 0.005
LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Milliseconds of an acquire and release, medians.

    Attributes:
        ratio: of `wall` to that of redis-py in the same round; None without it.
    """

    peer: str
    wall: float
    ratio: float | None
    processor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Of a peer in a crowd: medians of the rounds. Milliseconds, but sections a second.

    Attributes:
        ratio: of sections a second to those of redis-py in the same round; None without it.
    """

    peer: str
    tasks: int
    sections: float
    ratio: float | None
    handover: float
    handover_worst: float
    longest_wait: float


class Run(NamedTuple):
    """One round of a crowd: sections a second, seconds between two of them, the longest wait."""

    rate: float
    gaps: list[float]
    longest: float


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


async def wanted(hold: Hold, tasks: int, sections: int) -> Run:
    """Let a crowd do all of the sections, which takes as long as its last task."""
    key, marks, waits = uuid.uuid4().hex, list[tuple[float, float]](), list[float]()

    async def work() -> None:
        for _ in range(sections // tasks):
            asked = time.perf_counter()
            async with hold(key):
                entered = time.perf_counter()
                await asyncio.sleep(SECTION_SECONDS)
                marks.append((entered, time.perf_counter()))
            waits.append(entered - asked)

    begun = time.perf_counter()
    async with asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    rate = len(marks) / (time.perf_counter() - begun)
    marks.sort()
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(marks)]
    return Run(rate, gaps, max(waits))


async def measure_alone(holds: Mapping[str, Hold], rounds: int) -> list[Alone]:
    """Measure all, in turns, so that what else the machine does meets all of them."""
    wall: dict[str, list[float]] = {name: [] for name in holds}
    processor: dict[str, list[float]] = {name: [] for name in holds}
    for hold in holds.values():
        await alone(hold, 20)
    for _ in range(10 * rounds):
        for name, hold in holds.items():
            taken, used = await alone(hold, 50)
            wall[name].append(statistics.median(taken))
            processor[name].append(used)
    return [
        Alone(
            peer=name,
            wall=1000 * statistics.median(wall[name]),
            ratio=_ratio(wall[name], wall.get("redis-py")),
            processor=1000 * statistics.median(processor[name]),
        )
        for name in holds
    ]


async def measure_wanted(
    holds: Mapping[str, Hold], tasks: int, sections: int, rounds: int
) -> list[Wanted]:
    """Measure all with a crowd, in turns."""
    runs: dict[str, list[Run]] = {name: [] for name in holds}
    for _ in range(rounds):
        for name, hold in holds.items():
            runs[name].append(await wanted(hold, tasks, sections))
    return [_figures(name, tasks, found, runs.get("redis-py")) for name, found in runs.items()]


def _ratio(mine: list[float], base: list[float] | None) -> float | None:
    """Return the median of the ratios within each round."""
    if base is None:
        return None
    return statistics.median(one / other for one, other in zip(mine, base, strict=True))


def _figures(name: str, tasks: int, runs: list[Run], base: list[Run] | None) -> Wanted:
    gaps = [gap for run in runs for gap in run.gaps]
    rates = [run.rate for run in runs]
    return Wanted(
        peer=name,
        tasks=tasks,
        sections=statistics.median(rates),
        ratio=_ratio(rates, None if base is None else [run.rate for run in base]),
        handover=1000 * statistics.median(gaps),
        handover_worst=1000 * statistics.quantiles(gaps, n=100)[98],
        longest_wait=1000 * statistics.median(run.longest for run in runs),
    )


async def measure(url: str, sections: int, rounds: int) -> tuple[list[Alone], list[Wanted]]:
    """Measure all peers of a server."""
    async with contextlib.AsyncExitStack() as stack:
        holds = {
            name: await stack.enter_async_context(make(url)) for name, make in peers_of(url).items()
        }
        single = await measure_alone(holds, rounds)
        crowds = [await measure_wanted(holds, tasks, sections, rounds) for tasks in CROWDS]
    return single, list(itertools.chain(*crowds))


def peers_of(url: str) -> dict[str, Peer]:
    """Return who can be measured on a server."""
    found: dict[str, Peer] = {"cluster-kit": cluster_kit}
    if url.startswith("redis"):
        found["redis-py"] = redis_py
        with contextlib.suppress(ImportError):
            import cashews as _  # noqa: F401

            found["cashews"] = cashews
    return found


def _cell(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def show(server: str, single: list[Alone], crowds: list[Wanted]) -> None:
    """Print tables."""
    print(f"\n| {server} | alone, ms | x redis-py | of it processor, ms |")
    print("| --- | --- | --- | --- |")
    for one in single:
        print(f"| {one.peer} | {one.wall:.2f} | {_cell(one.ratio)} | {one.processor:.2f} |")
    print(
        f"\n| {server} | tasks | sections/s | x redis-py | handover p50, ms | p99, ms | "
        "longest wait, ms |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for crowd in crowds:
        print(
            f"| {crowd.peer} | {crowd.tasks} | {crowd.sections:.0f} | {_cell(crowd.ratio)} | "
            f"{crowd.handover:.1f} | {crowd.handover_worst:.0f} | {crowd.longest_wait:,.0f} |"
        )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description="Locks: time alone, and handover in a crowd.")
    parser.add_argument("urls", nargs="+", help="of Redis, memcached or RabbitMQ")
    parser.add_argument("--sections", type=int, default=128, help="of a crowd, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for url in given.urls:
        single, crowds = asyncio.run(measure(url, given.sections, given.rounds))
        server = url.partition(":")[0]
        if given.json:
            figures = {
                "alone": [asdict(one) for one in single],
                "wanted": [asdict(crowd) for crowd in crowds],
            }
            print(json.dumps({"server": server, **figures}))
        else:
            show(server, single, crowds)


if __name__ == "__main__":
    main()
