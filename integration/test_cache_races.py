"""Another process invalidates while a load of this one is held, at each of its steps."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster_kit import Cache
from cluster_kit.testing.contracts.cache import Environment, Features, Scenarios
from cluster_kit.testing.contracts.cache.base import KEY
from cluster_kit.testing.contracts.cache.bench import Bench
from cluster_kit.testing.contracts.cache.pausing import Pauses
from cluster_kit.testing.contracts.common import ProxiedEnvironment
from integration.test_cache_contract import (
    MemcachedEnvironment,
    OnlyBackplane,
    RedisEnvironment,
    WithBackplane,
)

OTHER = """
import asyncio, json, sys
from cluster_kit import Cluster

key, backplane = json.loads(sys.argv[1])
DO = {
    "delete": lambda cache: cache.delete(key),
    "tag": lambda cache: cache.invalidate_tags("rows"),
    "reset": lambda cache: cache.reset(),
    "set": lambda cache: cache.set(key, "new", 60, tags=["rows"]),
    "get": lambda cache: cache.get(key),
    "mark": lambda cache: cache.delete("marker"),
}

async def main():
    async with Cluster() as cluster:
        cache = await cluster.caches.create_cache("contract", backplane=backplane)
        print("ready", flush=True)
        while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
            print(json.dumps(await DO[word](cache)), flush=True)

asyncio.run(main())
"""

MOST_CALLS = 10  # of the store, in one load


class Other:
    """A cache in another process.

    Attributes:
        told: whether it tells what it invalidates.
    """

    def __init__(self, process: asyncio.subprocess.Process, *, told: bool) -> None:
        self._process = process
        self.told = told

    async def does(self, word: str) -> object:
        """Have it do something, and return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        return json.loads(await self.hears())

    async def hears(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "it ended"
        return line


class Load:
    """A loader. It is held before or after it reads the row, or a call of the store is.

    Attributes:
        reached: set when it is held.
        row: that it reads.
    """

    def __init__(self, held: str = "", pauses: Pauses | None = None, number: int = 0) -> None:
        self.row = "old"
        self._held = held
        self._pauses = pauses
        self._number = number
        self._go = asyncio.Event()
        self.reached = asyncio.Event() if pauses is None else pauses.reached

    def begin(self) -> None:
        if self._pauses is not None:
            self._pauses.arm(self._number, after=self._held == "after")

    def end(self) -> None:
        """Hold nothing any more."""
        self._go.set()
        if self._pauses is not None:
            self._pauses.release()

    async def __call__(self) -> object:
        await self._hold("before")
        value = self.row
        await self._hold("after")
        return value

    async def _hold(self, where: str) -> None:
        if where == self._held and self._pauses is None:
            self.reached.set()
            await self._go.wait()


@asynccontextmanager
async def another_process(bench: Bench) -> AsyncIterator[Other]:
    environment = bench.environment
    shared = isinstance(environment, ProxiedEnvironment)
    url = environment.server_url if shared else await environment.url(1)  # type: ignore[attr-defined]
    broker = environment.pubsub_url()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OTHER, json.dumps([KEY, broker is not None])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "CLUSTER_KIT_APP": bench.app,
            "CLUSTER_KIT_CACHE__URL": url,
            "CLUSTER_KIT_CACHE__TIMEOUT": "10",
            "CLUSTER_KIT_PUBSUB__URL": broker or "memory://",
            "CLUSTER_KIT_EVENT_QUEUE__URL": "memory://",
        },
    )
    other = Other(process, told=broker is not None)
    try:
        assert await other.hears() == b"ready\n"
        yield other
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@pytest.mark.asyncio
@pytest.mark.slow
class ProcessRaces(Scenarios):
    @pytest.mark.parametrize("way", ["delete", "tag", "reset", "set"])
    async def test_no_step_of_a_load_brings_an_old_value_back(self, bench: Bench, way: str) -> None:
        cluster = await bench.cluster()
        cache, pauses = await bench.cache(cluster), bench.pauses[cluster.instance_id]
        async with another_process(bench) as other:
            for held in ("before", "after"):
                load = Load(held)
                await race(bench, cache, other, way, load)
                assert load.reached.is_set()
                for number in range(MOST_CALLS) if self.features.shared else ():
                    load = Load(held, pauses, number)
                    await race(bench, cache, other, way, load)
                    if not load.reached.is_set():
                        assert number > 2  # it looks, promises, and stores
                        break
                else:
                    assert not self.features.shared, "it takes more calls than were held"


async def race(bench: Bench, cache: Cache, other: Other, way: str, load: Load) -> None:
    """Have a load overtaken, and look at what is left of it."""
    await cache.set(KEY, "before")  # it goes as the reset is heard, which nothing else would tell
    await other.does("reset")
    await bench.sees(cache, KEY, None)
    await mark(bench, cache)
    load.begin()
    loop = asyncio.get_running_loop()
    task = loop.create_task(_wrap(cache, load))
    waiting = loop.create_task(load.reached.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        load.end()
    load.row = "new"
    await other.does(way)
    if other.told:
        await other.does("mark")
        await bench.sees(cache, "marker", None)  # so it has heard what was told before
    load.end()
    await task
    assert await cache.get(KEY) != "old"
    assert await other.does("get") != "old"
    assert await _wrap(cache, load) == "new"


async def mark(bench: Bench, cache: Cache) -> None:
    await cache.set("marker", 1)
    await bench.sees(cache, "marker", 1)


async def _wrap(cache: Cache, load: Load) -> object:
    return await cache.wrap(KEY, load, ttl=60, tags=["rows"])


class TestRedis(ProcessRaces):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return RedisEnvironment(request.getfixturevalue("redis"))


class TestMemcached(ProcessRaces):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemcachedEnvironment(request.getfixturevalue("memcached"))


@pytest.mark.broker
class TestBackplaneAlone(ProcessRaces):
    features = Features(shared=False, raw=False, link_faults=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return OnlyBackplane(request.getfixturevalue("rabbitmq"))


@pytest.mark.broker
class TestRedisAndBackplane(ProcessRaces):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        urls = [request.getfixturevalue(name) for name in ("redis", "rabbitmq")]
        return WithBackplane(*urls)
