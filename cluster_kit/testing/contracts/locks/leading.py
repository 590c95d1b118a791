"""Scenarios: one instance leads."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import LockLost
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench
from cluster_kit.testing.waiting import eventually

_LONG = 60.0


@pytest.mark.asyncio
class LeadingScenarios(Scenarios):
    """And another takes over when it cannot."""

    async def test_one_instance_leads_and_another_takes_over(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        led: list[tuple[str, int]] = []
        stopped = asyncio.Event()

        async def lead(cluster: Cluster) -> None:
            async for lease in cluster.locks.leader(KEY, ttl=self.ttl):
                with suppress(LockLost):
                    async with lease:
                        led.append((cluster.instance_id, lease.fence))
                        await asyncio.sleep(_LONG)
            stopped.set()

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(lead(first))
            await eventually(lambda: len(led) == 1)
            group.create_task(lead(second))
            await bench.waiting(second)
            await first.stop()
            await stopped.wait()
            await eventually(lambda: len(led) == 2)
            await second.stop()

        assert [instance for instance, _ in led] == [first.instance_id, second.instance_id]

    async def test_a_leader_that_lost_its_lock_comes_to_lead_again(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        turns = 0

        async for lease in cluster.locks.leader(KEY, ttl=self.ttl, max_hold=self.ttl / 2):
            turns += 1
            with suppress(LockLost):
                async with lease:
                    await asyncio.sleep(_LONG)
            if turns == 2:
                break

        await bench.free(cluster, KEY)
