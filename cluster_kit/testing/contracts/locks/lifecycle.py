"""Scenarios: start, stop, and what locks have to do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster_kit.errors import LockLost, NotStartedError
from cluster_kit.locks import LeaseState
from cluster_kit.plugin import Plugin
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench


@pytest.mark.asyncio
class LifecycleScenarios(Scenarios):
    """A stop gives everything back."""

    async def test_a_stop_gives_back_what_is_held(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY)

        await first.stop()

        assert lease.state is not LeaseState.HELD
        assert await second.locks.inspect(KEY) is None
        await lease.release()

    async def test_a_stop_ends_bodies(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        inside = asyncio.Event()

        async def body() -> None:
            async with first.locks.hold(KEY):
                inside.set()
                await asyncio.sleep(60)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(_ends_with(LockLost, body))
            await inside.wait()
            await first.stop()
            await task

        assert await second.locks.inspect(KEY) is None

    async def test_a_stop_ends_waits(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async def wait() -> None:
            await second.locks.acquire(KEY)

        async with first.locks.hold(KEY), asyncio.TaskGroup() as group:
            waiters = [group.create_task(_ends_with(NotStartedError, wait)) for _ in range(3)]
            await bench.waiting(second, n=3)
            await second.stop()
            async with asyncio.timeout(5):
                await asyncio.wait(waiters)

        await bench.free(first, KEY)

    async def test_plugins_have_locks_from_before_load_until_before_stop(
        self, bench: Bench
    ) -> None:
        done: list[str] = []

        class Locking(Plugin):
            name = "locking"

            async def before_load(self) -> None:
                await self._lock("before_load")

            async def before_stop(self) -> None:
                await self._lock("before_stop")

            async def _lock(self, hook: str) -> None:
                async with self.cluster.locks.hold(KEY):
                    done.append(hook)

        cluster = await bench.cluster(start=False)
        cluster.add_plugin(Locking)
        await cluster.start()
        await cluster.stop()

        assert done == ["before_load", "before_stop"]

    async def test_a_stopped_cluster_started_again_has_locks(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for _ in range(3):
            async with cluster.locks.hold(KEY):
                pass
            await cluster.stop()
            await cluster.start()

        assert cluster.locks.stats().acquired == 3

    async def test_health_shows_the_locks(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        entry = cluster.health()["adapters"]["locks"]

        assert entry["status"] == "ok"
        assert entry["detail"]

    async def test_capabilities_say_what_the_backend_promises(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        found = cluster.locks.capabilities()

        assert found.backend
        assert found.exclusion
        assert found.fair == self.features.fair
        assert (found.fence == "strict") == self.features.strict_fence


async def _ends_with(error: type[Exception], body: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(error):
        await body()
