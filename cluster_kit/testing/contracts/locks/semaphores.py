"""Scenarios: so many at a time."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError, LockTimeout
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench, Room
from cluster_kit.testing.waiting import eventually


@pytest.mark.asyncio
class SemaphoreScenarios(Scenarios):
    """And never more."""

    async def test_no_more_are_inside_than_there_are_permits(self, bench: Bench) -> None:
        clusters, room = await bench.clusters(3), Room()

        async def visit(cluster: Cluster) -> None:
            for _ in range(4):
                async with cluster.locks.semaphore(KEY, 2).hold() as lease:
                    await room.visit(lease, 0.005)

        async with asyncio.TaskGroup() as group:
            for cluster in clusters:
                for _ in range(2):
                    group.create_task(visit(cluster))

        assert room.most == 2
        assert len(room.fences) == 24

    async def test_the_last_permit_is_waited_for(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        held = [await first.locks.semaphore(KEY, 2).acquire() for _ in range(2)]

        assert await second.locks.semaphore(KEY, 2).try_acquire() is None
        with pytest.raises(LockTimeout) as found:
            await second.locks.semaphore(KEY, 2).acquire(timeout=0.1)
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(second.locks.semaphore(KEY, 2).acquire(timeout=15))
            await bench.waiting(second, n=2)
            await held[1].release()

        assert found.value.key == KEY
        assert "all 2 permits were taken all of the 0.1 s" in str(found.value)
        waiter.result().check()
        await waiter.result().release()
        await held[0].release()

    async def test_a_permit_nobody_wants_any_more_is_given_back(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        held = [await first.locks.semaphore(KEY, 3).acquire() for _ in range(3)]

        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(second.locks.semaphore(KEY, 3).acquire(timeout=15))
            cancelled = group.create_task(second.locks.semaphore(KEY, 3).acquire(timeout=15))
            await bench.waiting(second, n=6)
            cancelled.cancel()
            for lease in held:
                await lease.release()
        await waiter.result().release()

        await eventually(lambda: second.locks.stats().held == 0)
        again = [await first.locks.semaphore(KEY, 3).acquire(timeout=15) for _ in range(3)]
        for lease in again:
            await lease.release()

    async def test_permits_and_locks_are_apart(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold(KEY), second.locks.semaphore(KEY, 1).hold(timeout=0):
            assert await first.locks.semaphore(KEY, 1).try_acquire() is None

    @pytest.mark.parametrize("permits", [0, -1, 101, True])
    async def test_a_wrong_number_of_permits_is_refused(self, bench: Bench, permits: int) -> None:
        cluster = await bench.cluster()

        with pytest.raises(ConfigurationError):
            cluster.locks.semaphore(KEY, permits)
