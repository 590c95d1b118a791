"""A process of a load run of caches: reads, writes and invalidates at random until told to end.

``python -m integration.load.cache_worker NUMBER PROCESSES TRUTH REPORT``; where store and broker
are is in the environment, as for any program. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import random
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from cluster_kit import MISSING, Cache, Cluster
from cluster_kit.errors import CacheError

KEYS = 64
L1_TTL, DEGRADED_TTL, TTL = 3.0, 1.0, 20.0
_READERS = 3
_NUMBER = struct.Struct("<q")
_LOADING_SECONDS = 0.004


class Truth:
    """What the database says, and what has been claimed, seen by all processes.

    A version is claimed when the call that invalidated the one before has returned.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 2 * KEYS * _NUMBER.size)

    @staticmethod
    def make(path: Path) -> None:
        path.write_bytes(bytes(2 * KEYS * _NUMBER.size))

    def version(self, key: int) -> int:
        return int(_NUMBER.unpack_from(self._map, key * _NUMBER.size)[0])

    def write(self, key: int, version: int) -> None:
        _NUMBER.pack_into(self._map, key * _NUMBER.size, version)

    def claimed(self, key: int) -> int:
        return int(_NUMBER.unpack_from(self._map, (KEYS + key) * _NUMBER.size)[0])

    def claim(self, key: int, version: int) -> None:
        _NUMBER.pack_into(self._map, (KEYS + key) * _NUMBER.size, version)


class Worker:
    """One process: the only writer of its keys, and a reader of all."""

    def __init__(self, number: int, processes: int, truth: Truth, cache: Cache) -> None:
        self._tag = f"owner-{number}"
        self._processes = processes
        self._own = list(range(number, KEYS, processes))
        self._truth = truth
        self._cache = cache
        self._random = random.Random(number)
        self.counts: Counter[str] = Counter()
        self.claims: list[tuple[int, int, float]] = []
        self.stale: list[tuple[int, int, float, str]] = []

    async def write(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.0, 0.04))
            way = self._random.choice(("delete", "delete", "set", "tag"))
            keys = self._own if way == "tag" else [self._random.choice(self._own)]
            versions = {key: self._truth.version(key) + 1 for key in keys}
            for key, version in versions.items():
                self._truth.write(key, version)
            try:
                await self._tell(way, versions)
            except CacheError as exc:
                self.counts[type(exc).__name__] += 1
                continue
            now = time.monotonic()
            for key, version in versions.items():
                self.claims.append((key, version, now))
                self._truth.claim(key, version)
            self.counts[way] += 1

    async def _tell(self, way: str, versions: dict[int, int]) -> None:
        if way == "tag":
            await self._cache.invalidate_tags(self._tag)
            return
        [(key, version)] = versions.items()
        if way == "delete":
            await self._cache.delete(f"row:{key}")
        else:
            await self._cache.set(f"row:{key}", {"v": version}, tags=[self._tag])

    async def read(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.0, 0.01))
            key = self._random.randrange(KEYS)
            claimed, start = self._truth.claimed(key), time.monotonic()
            way = self._random.choice(("get", "wrap", "wrap"))
            value = await self._look(way, key)
            if not isinstance(value, dict):
                self.counts["misses"] += 1
                continue
            self.counts["reads"] += 1
            if value["v"] < claimed:
                self.stale.append((key, value["v"], start, way))

    async def _look(self, way: str, key: int) -> object:
        if way == "get":
            return await self._cache.get(f"row:{key}", MISSING)

        async def load() -> dict[str, int]:
            version = self._truth.version(key)
            await asyncio.sleep(self._random.uniform(0.0, _LOADING_SECONDS))
            return {"v": version}

        tag = f"owner-{key % self._processes}"
        return await self._cache.wrap(f"row:{key}", load, tags=[tag])


async def main(number: int, processes: int, truth: Path, report: Path) -> None:
    async with Cluster() as cluster:
        cache = await cluster.caches.create_cache("rows", ttl=TTL, l1_ttl=L1_TTL)
        linked: list[tuple[float, bool]] = []
        cluster.telemetry.subscribe(
            lambda event, fields: (
                linked.append((time.monotonic(), bool(fields["live"])))
                if event == "cache.linked"
                else None
            )
        )
        worker = Worker(number, processes, Truth(truth), cache)
        loop = asyncio.get_running_loop()
        works = [worker.write(), *(worker.read() for _ in range(_READERS))]
        tasks = [loop.create_task(work) for work in works]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [repr(e) for e in ended if not isinstance(e, asyncio.CancelledError)]
        stats = cache.stats()
    found = {
        "claims": worker.claims,
        "stale": worker.stale,
        "counts": worker.counts,
        "failures": failures,
        "linked": linked,
        "stats": {name: getattr(stats, name) for name in stats.__slots__},
    }
    await asyncio.to_thread(report.write_text, json.dumps(found))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
