"""Scenarios: one at a time."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import LockTimeout
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench, Room


async def _visit_often(cluster: Cluster, room: Room, times: int) -> None:
    for _ in range(times):
        async with cluster.locks.hold(KEY) as lease:
            await room.visit(lease)


@pytest.mark.asyncio
class ExclusionScenarios(Scenarios):
    """Whoever is inside is alone."""

    async def test_tasks_of_one_instance_are_never_inside_together(self, bench: Bench) -> None:
        cluster, room = await bench.cluster(), Room()

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(_visit_often(cluster, room, 5))

        assert room.most == 1
        assert len(room.fences) == 50

    async def test_instances_are_never_inside_together(self, bench: Bench) -> None:
        clusters, room = await bench.clusters(4), Room()

        async with asyncio.TaskGroup() as group:
            for cluster in clusters:
                for _ in range(3):
                    group.create_task(_visit_often(cluster, room, 4))

        assert room.most == 1
        assert len(room.fences) == 48

    @pytest.mark.needs("strict_fence")
    async def test_every_fence_is_greater_than_the_one_before(self, bench: Bench) -> None:
        clusters, room = await bench.clusters(3), Room()

        async with asyncio.TaskGroup() as group:
            for cluster in clusters:
                group.create_task(_visit_often(cluster, room, 10))

        assert len(room.fences) == 30
        assert all(a < b for a, b in zip(room.fences, room.fences[1:], strict=False))

    async def test_two_keys_are_two_locks(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold("a"), second.locks.hold("b"):
            assert await second.locks.try_acquire("a") is None
            assert await first.locks.try_acquire("b") is None

    async def test_two_applications_have_locks_of_their_own(self, bench: Bench) -> None:
        ours, theirs = await bench.cluster(), await bench.cluster(app=f"other-{id(bench)}")

        async with ours.locks.hold(KEY), theirs.locks.hold(KEY):
            pass

    async def test_any_legal_key_is_a_lock_of_its_own(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        keys = ["a", "a.b", "ab", "{a}", "}", "ж" * 100, "日本", "x" * 200, "a:fence", "%41"]

        for key in keys:
            async with first.locks.hold(key):
                assert await second.locks.try_acquire(key) is None
                for other in keys:
                    if other != key:
                        lease = await second.locks.try_acquire(other)
                        assert lease is not None
                        await lease.release()

    async def test_a_read_modify_write_under_a_lock_loses_nothing(self, bench: Bench) -> None:
        clusters = await bench.clusters(3)
        store = {"n": 0}

        async def add(cluster: Cluster) -> None:
            for _ in range(10):
                async with cluster.locks.hold(KEY):
                    read = store["n"]
                    await asyncio.sleep(0.001)
                    store["n"] = read + 1

        async with asyncio.TaskGroup() as group:
            for cluster in clusters:
                group.create_task(add(cluster))

        assert store["n"] == 30

    async def test_waiters_of_an_instance_are_served_in_their_order(self, bench: Bench) -> None:
        cluster, served = await bench.cluster(), list[int]()
        holder = await cluster.locks.acquire(KEY)

        async def wait(number: int) -> None:
            async with cluster.locks.hold(KEY):
                served.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(wait(number))
                await bench.waiting(cluster, n=number + 1)
            await holder.release()

        assert served == list(range(8))

    @pytest.mark.needs("fair")
    async def test_waiters_of_all_instances_are_served_in_their_order(self, bench: Bench) -> None:
        clusters, served = await bench.clusters(4), list[int]()
        for cluster in clusters:  # connects where that is left to the first use
            async with cluster.locks.hold(KEY):
                pass
        holder = await clusters[0].locks.acquire(KEY)

        async def wait(number: int) -> None:
            async with clusters[number].locks.hold(KEY):
                served.append(number)

        async with asyncio.TaskGroup() as group:
            for number in (2, 0, 3, 1):
                group.create_task(wait(number))
                await asyncio.sleep(0.1)
            await holder.release()

        assert served == [2, 0, 3, 1]

    async def test_a_waiter_that_gives_up_holds_nobody_up(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        holder = await first.locks.acquire(KEY)

        async with asyncio.TaskGroup() as group:
            leaving = [group.create_task(second.locks.acquire(KEY)) for _ in range(3)]
            staying = group.create_task(second.locks.acquire(KEY))
            await bench.waiting(second, n=4)
            for task in leaving:
                task.cancel()
            await holder.release()
            lease = await staying

        assert all(task.cancelled() for task in leaving)
        await lease.release()
        await bench.free(first, KEY)

    async def test_a_lock_passes_from_instance_to_instance(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        holder = await first.locks.acquire(KEY)

        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(second.locks.acquire(KEY))
            await bench.waiting(second)
            await holder.release()
            async with asyncio.timeout(10):
                lease = await waiter

        with pytest.raises(LockTimeout):
            await first.locks.acquire(KEY, timeout=0.05)
        await lease.release()
