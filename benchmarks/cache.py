"""Measures the caches beside aiocache and cashews, in one process and in turning order.

``python benchmarks/cache.py --redis-url redis://127.0.0.1:6379/0``, or without ``--redis-url`` in
the process alone. A figure is the processor time of this process for one call, the least of all
rounds: what else the machine does depends on it least. With ``--sets N`` so many values are set
instead, and the memory this takes is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from cluster_kit import Cluster, Settings

Call = Callable[[], Awaitable[object]]

OWN = "cluster-kit"
VALUE = {
    "id": 17,
    "name": "Ada Lovelace",
    "roles": ["admin", "editor"],
    "profile": {"lang": "en", "tz": "UTC", "age": 36},
    "active": True,
    "score": 3.5,
}
TTL = 600


@contextlib.asynccontextmanager
async def own(url: str) -> AsyncIterator[Any]:
    """A cluster whose caches are on `url`."""
    settings = Settings(cache={"url": url}, event_queue={"url": "memory://"})
    async with Cluster("bench", settings=settings) as cluster:
        yield cluster


async def in_process(stack: AsyncExitStack) -> dict[str, dict[str, Call]]:
    """Hits of values in this process, by what is stored."""
    from aiocache import SimpleMemoryCache
    from cashews import Cache
    from cashews.backends.memory import Memory

    cluster = await stack.enter_async_context(own("memory://"))
    shared = await cluster.caches.create_cache("shared", copy="none")
    theirs, theirs_at_once = SimpleMemoryCache(), SimpleMemoryCache(timeout=None)
    front, backend = Cache(), Memory()
    front.setup("mem://")
    await backend.init()
    stack.push_async_callback(backend.close)
    stack.push_async_callback(front.close)
    found: dict[str, dict[str, Call]] = {}
    for name, value in (("text", "Ada"), ("flat-object", {"a": 1, "b": 2}), ("object", VALUE)):
        await cluster.cache.set(name, value, TTL)
        await shared.set(name, value, TTL)
        for peer in (theirs, theirs_at_once):
            await peer.set(name, value, ttl=TTL)
        for other in (front, backend):
            await other.set(name, value, expire=TTL)
        found[f"get of {name}"] = {
            OWN: lambda name=name: cluster.cache.get(name),  # type: ignore[misc]
            f"{OWN}, copy=none": lambda name=name: shared.get(name),  # type: ignore[misc]
            "aiocache": lambda name=name: theirs.get(name),  # type: ignore[misc]
            "aiocache, timeout=None": lambda name=name: theirs_at_once.get(name),  # type: ignore[misc]
            "cashews": lambda name=name: front.get(name),  # type: ignore[misc]
            "cashews, its backend": lambda name=name: backend.get(name),  # type: ignore[misc]
        }
    return found


async def in_redis(url: str, stack: AsyncExitStack) -> dict[str, dict[str, Call]]:
    """Sets and gets of an object on Redis; nothing is held in this process."""
    from aiocache import RedisCache
    from aiocache.serializers import JsonSerializer
    from cashews import Cache

    parts = urlsplit(url)
    cluster = await stack.enter_async_context(own(url))
    cache = await cluster.caches.create_cache("bench", l1_size=0)
    theirs = RedisCache(endpoint=parts.hostname, port=parts.port, serializer=JsonSerializer())
    front = Cache()
    front.setup(url)
    stack.push_async_callback(theirs.close)
    stack.push_async_callback(front.close)
    sets: dict[str, Call] = {
        OWN: lambda: cache.set("key", VALUE, TTL),
        "aiocache": lambda: theirs.set("key", VALUE, ttl=float(TTL)),
        "cashews": lambda: front.set("key", VALUE, expire=TTL),
    }
    gets: dict[str, Call] = {
        OWN: lambda: cache.get("key"),
        "aiocache": lambda: theirs.get("key"),
        "cashews": lambda: front.get("key"),
    }
    return {"set on Redis": sets, "get on Redis": gets}


async def measure(calls: dict[str, Call], rounds: int, each: int) -> dict[str, float]:
    """Return the least processor time for one call, microseconds, by contender."""
    best: dict[str, float] = {}
    for number in range(rounds):
        names = list(calls)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            call, start = calls[name], time.process_time()
            for _ in range(each):
                await call()
            taken = (time.process_time() - start) / each * 1e6
            best[name] = min(best.get(name, taken), taken)
    return best


async def compare(redis: str | None, rounds: int, console: Console) -> None:
    """Print a table of every experiment."""
    async with AsyncExitStack() as stack:
        experiments = [(await in_process(stack), 2000)]
        if redis is not None:
            experiments.append((await in_redis(redis, stack), 200))
        for found, each in experiments:
            for title, calls in found.items():
                table = Table("", "microseconds", f"times {OWN}", title=title)
                best = await measure(calls, rounds, each)
                for name, taken in best.items():
                    table.add_row(name, f"{taken:.2f}", f"{taken / best[OWN]:.1f}")
                console.print(table)


async def fill(count: int, console: Console) -> None:
    """Set so many values and show the memory of this process after each tenth."""
    async with own("memory://") as cluster:
        for number in range(count):
            await cluster.cache.set(f"key-{number}", VALUE, TTL)
            if (number + 1) % (count // 10) == 0:
                gc.collect()
                stats = cluster.cache.stats()
                console.print(
                    f"{number + 1:,} sets: {stats.entries:,} entries, about "
                    f"{stats.bytes / 2**20:.1f} MiB, process {resident() / 2**20:.1f} MiB"
                )


def resident() -> float:
    """Return the memory of this process, bytes."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description="Benchmarks of caches.")
    parser.add_argument("--redis-url", help="of a Redis; keys of this run stay there until expiry")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sets", type=int, metavar="N")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # what drivers say of their own calls
    console = Console()
    if given.sets:
        asyncio.run(fill(given.sets, console))
    else:
        asyncio.run(compare(given.redis_url, given.rounds, console))


if __name__ == "__main__":
    main()
