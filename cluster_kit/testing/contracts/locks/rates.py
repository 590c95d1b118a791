"""Scenarios: so often in a time."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError, LockTimeout, LockUnavailable, NotStartedError
from cluster_kit.locks import RateLimit
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench

_LONG = 3600.0


@pytest.mark.asyncio
class RateScenarios(Scenarios):
    """And not once more, whoever asks."""

    @pytest.mark.needs("rate_limits")
    async def test_no_more_are_admitted_than_the_limit(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with asyncio.TaskGroup() as group:
            tries = [
                group.create_task(cluster.locks.rate_limit(KEY, 5, _LONG).try_acquire())
                for cluster in (first, second) * 6
            ]

        assert sum(done.result() for done in tries) == 5

    @pytest.mark.needs("rate_limits")
    async def test_no_stretch_of_time_has_more_than_the_limit(self, bench: Bench) -> None:
        clusters, period, times = await bench.clusters(2), 0.3, list[float]()
        loop = asyncio.get_running_loop()

        async def work(cluster: Cluster) -> None:
            for _ in range(6):
                await cluster.locks.rate_limit(KEY, 3, period).acquire(timeout=20)
                times.append(loop.time())

        async with asyncio.TaskGroup() as group:
            for cluster in clusters:
                group.create_task(work(cluster))

        # Each was noted after it was admitted: the fourth of a row cannot be early, only late.
        times.sort()
        assert len(times) == 12
        assert times[-1] - times[0] > 3 * period - period / 2

    @pytest.mark.needs("rate_limits")
    async def test_waiters_of_an_instance_are_admitted_in_their_order(self, bench: Bench) -> None:
        cluster, served = await bench.cluster(), list[int]()
        limit = cluster.locks.rate_limit(KEY, 1, 0.1)
        await limit.acquire()

        async def wait(number: int) -> None:
            await limit.acquire(timeout=20)
            served.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(4):  # tasks begin in the order in which they were made
                group.create_task(wait(number))

        assert served == [0, 1, 2, 3]

    @pytest.mark.needs("rate_limits")
    async def test_a_wait_ends_with_its_time_or_with_the_cluster(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        limit = cluster.locks.rate_limit(KEY, 1, _LONG)
        await limit.acquire(timeout=0)

        with pytest.raises(LockTimeout) as found:
            await limit.acquire(timeout=0.1)
        assert found.value.key == KEY
        assert "the limit of 1 in 3600 s was reached all of the 0.1 s" in str(found.value)
        assert not await limit.try_acquire(timeout=0.05)
        async with asyncio.TaskGroup() as group:
            group.create_task(_ends_with_the_cluster(limit))
            await bench.waiting(cluster)
            await cluster.stop()

    @pytest.mark.needs("rate_limits")
    async def test_however_many_wait_in_vain_each_is_told_that_it_is_reached(
        self, bench: Bench
    ) -> None:
        limit = (await bench.cluster()).locks.rate_limit(KEY, 1, _LONG)
        await limit.acquire(timeout=0)

        silent = 0  # tries in which the server was too busy to answer, as it may be

        async def come(number: int) -> bool:  # when one gives up, the next is about to
            nonlocal silent
            await asyncio.sleep(number * 0.002)
            try:
                return await limit.try_acquire(timeout=1.5)
            except LockUnavailable:
                silent += 1
                return False

        async with asyncio.TaskGroup() as group:
            tries = [group.create_task(come(number)) for number in range(400)]

        assert {attempt.result() for attempt in tries} == {False}
        assert silent < 100

    @pytest.mark.needs("rate_limits", "link_faults")
    async def test_without_a_link_nobody_is_admitted(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        limit = cluster.locks.rate_limit(KEY, 5, _LONG)

        async with asyncio.TaskGroup() as group, bench.outage(cluster):
            with pytest.raises(LockUnavailable) as found:
                await limit.try_acquire()
            waiter = group.create_task(limit.acquire(timeout=20))
            await asyncio.sleep(0.2)
            assert not waiter.done()

        assert found.value.key == KEY

    @pytest.mark.needs("rate_limits")
    async def test_keys_locks_and_limits_are_apart(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY):
            assert await cluster.locks.rate_limit(KEY, 1, _LONG).try_acquire()
            assert await cluster.locks.rate_limit(f"{KEY}.2", 1, _LONG).try_acquire()
            assert not await cluster.locks.rate_limit(KEY, 1, _LONG).try_acquire()

    @pytest.mark.parametrize(("limit", "period"), [(0, 1), (10_001, 1), (True, 1), (1, 0)])
    async def test_a_wrong_limit_is_refused(self, bench: Bench, limit: int, period: float) -> None:
        cluster = await bench.cluster()

        with pytest.raises(ConfigurationError):
            cluster.locks.rate_limit(KEY, limit, period)

    async def test_what_cannot_be_counted_is_not_admitted(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        limit = cluster.locks.rate_limit(KEY, 1, 1)

        if self.features.rate_limits:
            assert await limit.try_acquire()
        else:
            with pytest.raises(ConfigurationError, match="no rate limits"):
                await limit.try_acquire()


async def _ends_with_the_cluster(limit: RateLimit) -> None:
    with pytest.raises(NotStartedError):
        await limit.acquire()
