"""Scenarios: what a lease says, and how long it lasts."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from cluster_kit.errors import ConfigurationError, LockLost
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench
from cluster_kit.testing.waiting import eventually


@pytest.mark.asyncio
class LeaseScenarios(Scenarios):
    """Renewed while it is held, over when it is not, and never ours in doubt."""

    async def test_a_lease_is_renewed_while_it_is_held(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold(KEY, ttl=self.ttl) as lease:
            await asyncio.sleep(self.ttl * 1.7)
            lease.check()
            assert await second.locks.try_acquire(KEY) is None

        assert await second.locks.inspect(KEY) is None

    async def test_a_lease_that_is_not_renewed_ends_with_its_ttl(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY, ttl=self.ttl, renew=False)

        async with asyncio.timeout(3 * self.ttl + 5):
            await lease.lost.wait()
            assert lease.state is LeaseState.LOST
            assert lease.valid_for() == 0
            with pytest.raises(LockLost):
                lease.check()
            with pytest.raises(LockLost):
                _ = lease.fence
            other = await second.locks.acquire(KEY)

        await other.release()
        await lease.release()

    async def test_a_lease_is_lost_before_anybody_else_may_enter(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY, ttl=self.ttl, renew=False)

        async with second.locks.hold(KEY):
            assert lease.state is LeaseState.LOST

    async def test_max_hold_ends_a_renewed_lease(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY, ttl=self.ttl, max_hold=self.ttl * 1.5)

        await asyncio.sleep(self.ttl)
        lease.check()
        async with asyncio.timeout(3 * self.ttl + 5), second.locks.hold(KEY):
            assert lease.state is LeaseState.LOST

    @pytest.mark.needs("unheard")
    async def test_validity_shrinks_and_is_extended(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY, ttl=self.ttl, renew=False)
        before = lease.valid_for()
        assert 0 < before < self.ttl

        await asyncio.sleep(0.05)
        assert lease.valid_for() < before
        await lease.extend(60)

        assert 40 < lease.valid_for() < 60
        await asyncio.sleep(self.ttl)
        lease.check()
        assert await second.locks.try_acquire(KEY) is None
        await lease.release()

    async def test_a_renewed_lease_can_be_shortened(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY, ttl=60) as lease:
            await lease.extend(self.ttl)
            assert lease.valid_for() < self.ttl
            await asyncio.sleep(self.ttl * 1.5)
            lease.check()

    async def test_a_released_lease_is_not_ours(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY)

        await lease.release()

        assert lease.state is LeaseState.RELEASED
        assert lease.valid_for() == 0
        assert not lease.lost.is_set()
        with pytest.raises(LockLost):
            lease.check()
        with pytest.raises(LockLost):
            await lease.extend(5)

    async def test_releasing_twice_is_no_error_and_frees_nobody_elses(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        lease = await first.locks.acquire(KEY)
        await lease.release()

        async with second.locks.hold(KEY) as other:
            await lease.release()
            other.check()
            assert await first.locks.inspect(KEY) is not None

    async def test_any_task_may_release(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY)

        async with asyncio.TaskGroup() as group:
            group.create_task(lease.release())

        assert await cluster.locks.inspect(KEY) is None

    @pytest.mark.parametrize("wrong", [0, -1, "5", None], ids=str)
    async def test_a_wrong_extension_is_refused(self, bench: Bench, wrong: float) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY) as lease:
            with pytest.raises(ConfigurationError):
                await lease.extend(wrong)
            lease.check()

    @pytest.mark.needs("loss")
    async def test_a_lock_the_server_forgot_is_lost_at_the_next_renewal(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY, ttl=self.ttl)

        await bench.environment.forget()

        async with asyncio.timeout(self.ttl + 10):
            await lease.lost.wait()
        assert lease.state is LeaseState.LOST
        assert await cluster.locks.inspect(KEY) is None  # a renewal makes none anew
        assert bench.reports("lock.lost")

    @pytest.mark.needs("loss")
    async def test_a_lock_the_server_forgot_cannot_be_extended(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY)

        await bench.environment.forget()

        with pytest.raises(LockLost):
            await lease.extend(30)
        assert lease.state is LeaseState.LOST

    @pytest.mark.needs("loss")
    async def test_a_stale_holder_frees_nobody_elses_lock(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        stale = await first.locks.acquire(KEY)
        await bench.environment.forget()

        async with second.locks.hold(KEY) as lease:
            await stale.release()
            await asyncio.sleep(0.1)
            lease.check()
            assert await first.locks.try_acquire(KEY) is None

    async def test_after_a_blocked_loop_the_first_question_hears_the_truth(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY, ttl=self.ttl)

        time.sleep(self.ttl + 0.1)  # noqa: ASYNC251 - what a careless body does

        assert not lease.lost.is_set()  # nothing but this had a chance to run
        assert lease.valid_for() == 0
        with pytest.raises(LockLost):
            lease.check()
        assert lease.lost.is_set()

    async def test_release_racing_a_renewal_leaves_no_zombie(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        for pause in range(60):
            lease = await cluster.locks.acquire(KEY, ttl=30)
            async with asyncio.TaskGroup() as group:
                group.create_task(_extend(lease, 30))
                for _ in range(pause % 12):
                    await asyncio.sleep(0)
                group.create_task(lease.release())
            assert await cluster.locks.inspect(KEY) is None

    async def test_counters_tell_what_was_done(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold(KEY):
            assert await second.locks.try_acquire(KEY) is None
            assert first.locks.stats().held == 1
        await eventually(lambda: first.locks.stats().held == 0)

        stats = first.locks.stats()
        assert (stats.acquired, stats.released, stats.lost, stats.waiting) == (1, 1, 0, 0)
        assert second.locks.stats().refused == 1
        assert [fields["key"] for fields in bench.reports("lock.acquired")] == [KEY]
        assert [fields["error"] for fields in bench.reports("lock.refused")] == ["LockTimeout"]


async def _extend(lease: Lease, ttl: float) -> None:
    with suppress(LockLost):  # the release may have been first
        await lease.extend(ttl)
