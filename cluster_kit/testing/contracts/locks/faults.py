"""Scenarios: the link breaks, the server forgets, answers do not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import LockLost, LockUnavailable
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench, Room
from cluster_kit.testing.waiting import eventually


@pytest.mark.asyncio
class FaultScenarios(Scenarios):
    """A holder learns the truth in time, and nothing is left behind."""

    @pytest.mark.needs("link_faults")
    async def test_without_a_link_nothing_is_granted(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with bench.outage(cluster):
            with pytest.raises(LockUnavailable) as found:
                await cluster.locks.acquire(KEY, timeout=0)
            with pytest.raises(LockUnavailable):
                await cluster.locks.try_acquire(KEY, timeout=0.3)
            with pytest.raises(LockUnavailable):
                await cluster.locks.inspect(KEY)
            assert cluster.health()["status"] != "ok"

        assert found.value.key == KEY
        assert found.value.retryable
        await eventually(lambda: cluster.health()["status"] == "ok")
        async with cluster.locks.hold(KEY):
            pass

    @pytest.mark.needs("link_faults")
    async def test_a_wait_outlasts_a_short_outage(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with asyncio.TaskGroup() as group:
            async with bench.outage(cluster):
                waiter = group.create_task(cluster.locks.acquire(KEY, timeout=20))
                await asyncio.sleep(0.3)
                assert not waiter.done()
            lease = await waiter

        lease.check()
        await lease.release()

    @pytest.mark.needs("link_faults", "unheard")
    async def test_a_lease_outlasts_a_short_outage(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY, ttl=6) as lease:
            async with bench.outage(cluster):
                await eventually(lambda: lease.state is LeaseState.SUSPECT)
                assert cluster.health()["status"] != "ok"
            await eventually(lambda: lease.state is LeaseState.HELD)

        assert bench.reports("lock.suspect")
        assert not bench.reports("lock.lost")

    @pytest.mark.needs("link_faults")
    async def test_a_long_outage_ends_the_body_before_another_enters(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        room = Room()

        async def hold() -> None:
            async with first.locks.hold(KEY, ttl=self.ttl) as lease:
                await room.visit(lease, 60)

        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            holding = group.create_task(_loses(hold()))
            await eventually(lambda: room.fences)
            async with bench.outage(first):
                async with second.locks.hold(KEY) as lease:
                    await room.visit(lease)
                await holding

        assert room.most == 1
        assert len(room.fences) == 2

    @pytest.mark.needs("frozen_link")
    async def test_a_frozen_link_ends_the_body_before_another_enters(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        room = Room()

        async def hold() -> None:
            async with first.locks.hold(KEY, ttl=self.ttl) as lease:
                await room.visit(lease, 60)

        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            holding = group.create_task(_loses(hold()))
            await eventually(lambda: room.fences)
            await bench.environment.freeze(first)
            async with second.locks.hold(KEY) as lease:
                await room.visit(lease)
            await holding
        await bench.environment.reconnect(first)

        assert room.most == 1

    @pytest.mark.needs("frozen_link")
    async def test_an_extension_under_way_ends_with_the_lease(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY, ttl=30, renew=False)
        await bench.environment.freeze(cluster)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            extending = group.create_task(_cannot_extend(lease))
            await asyncio.sleep(0.1)  # it has asked, and there is no answer
            group.create_task(lease.release())
            await asyncio.wait({extending})
            await bench.environment.reconnect(cluster)

        assert not extending.cancelled()

    @pytest.mark.needs("frozen_link")
    async def test_an_acquisition_on_a_frozen_link_ends_in_time(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        loop = asyncio.get_running_loop()
        await bench.environment.freeze(cluster)

        begun = loop.time()
        with pytest.raises(LockUnavailable):
            await cluster.locks.acquire(KEY, timeout=0.5)
        assert loop.time() - begun < 10
        await bench.environment.reconnect(cluster)

        await bench.free(cluster, KEY)

    @pytest.mark.needs("dropped_answers")
    async def test_a_grant_whose_answer_is_lost_leaves_no_orphan(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        await bench.environment.drop_answers(first)

        with pytest.raises(LockUnavailable):
            await first.locks.acquire(KEY, ttl=30, timeout=0.3)
        await bench.environment.reconnect(first)

        await bench.free(second, KEY, timeout=8)

    @pytest.mark.needs("dropped_answers")
    async def test_a_cancelled_acquisition_whose_answer_is_lost_leaves_no_orphan(
        self, bench: Bench
    ) -> None:
        first, second = await bench.clusters(2)
        await bench.environment.drop_answers(first)

        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(first.locks.acquire(KEY, ttl=30))
            await eventually(lambda: second.locks.inspect(KEY))
            waiter.cancel()
        await bench.environment.reconnect(first)

        await bench.free(second, KEY, timeout=8)

    @pytest.mark.needs("dropped_answers")
    async def test_an_acquisition_goes_on_with_the_grant_whose_answer_was_lost(
        self, bench: Bench
    ) -> None:
        first, second = await bench.clusters(2)
        await bench.environment.drop_answers(first)

        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(first.locks.acquire(KEY, ttl=30, timeout=20))
            holder = await eventually(lambda: second.locks.inspect(KEY))
            await bench.environment.reconnect(first)
            lease = await waiter

        assert holder is not None
        if self.features.strict_fence:
            assert lease.fence >= (holder.fence or 0)
        lease.check()
        assert await second.locks.try_acquire(KEY) is None
        await lease.release()

    @pytest.mark.needs("link_faults")
    async def test_a_release_that_cannot_be_told_is_told_later(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY, ttl=30)

        async with bench.outage(first):
            await lease.release()
            assert lease.state is LeaseState.RELEASED

        await bench.free(second, KEY, timeout=15)

    @pytest.mark.needs("link_faults", "unheard")
    async def test_an_extension_without_a_link_leaves_the_lease_as_it_was(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY, ttl=30, renew=False)

        async with bench.outage(cluster):
            with pytest.raises(LockUnavailable):
                await lease.extend(60)
            lease.check()

        await lease.release()

    @pytest.mark.needs("link_faults")
    async def test_many_cuts_let_nobody_in_twice(self, bench: Bench) -> None:
        clusters, room = await bench.clusters(3), Room()
        visits, pause = (60, 0.05) if self.features.unheard else (20, 0.7)

        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            group.create_task(
                _cut_until(bench, clusters, pause, lambda: len(room.fences) >= visits)
            )
            for cluster in clusters:
                group.create_task(_visit_until(cluster, room, self.ttl, visits))

        assert room.most == 1
        if self.features.strict_fence:
            assert room.fences == sorted(set(room.fences))

    @pytest.mark.needs("loss")
    async def test_fences_grow_over_a_loss_of_the_servers_data_or_say_so(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        async with cluster.locks.hold(KEY) as lease:
            before = lease.fence
        await bench.environment.forget()
        await eventually(lambda: cluster.health()["status"] == "ok")

        async with cluster.locks.hold(KEY, timeout=20) as lease:
            assert lease.fence > before or cluster.locks.capabilities().fence == "weak"


async def _loses(body: Coroutine[Any, Any, None]) -> None:
    """Await what has to end with `LockLost`."""
    with pytest.raises(LockLost):
        await body


async def _cannot_extend(lease: Lease) -> None:
    with pytest.raises((LockLost, LockUnavailable)):
        await lease.extend(60)


async def _visit_until(cluster: Cluster, room: Room, ttl: float, visits: int) -> None:
    while len(room.fences) < visits:
        try:
            async with cluster.locks.hold(KEY, ttl=ttl) as lease:
                await room.visit(lease)
        except (LockLost, LockUnavailable):
            await asyncio.sleep(0.01)


async def _cut_until(
    bench: Bench, clusters: list[Cluster], pause: float, done: Callable[[], bool]
) -> None:
    while not done():
        for cluster in clusters:
            await bench.environment.cut_off(cluster)
            await asyncio.sleep(0.02)
            await bench.environment.reconnect(cluster)
            await asyncio.sleep(pause)
