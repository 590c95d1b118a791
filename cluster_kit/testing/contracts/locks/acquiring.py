"""Scenarios: asking for a lock, in every way and with every answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest

from cluster_kit.errors import (
    ConfigurationError,
    InvalidNameError,
    LockAlreadyHeld,
    LockTimeout,
    LockUnavailable,
    NotStartedError,
)
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench


@pytest.mark.asyncio
class AcquiringScenarios(Scenarios):
    """Yes, no, or the reason why not."""

    async def test_a_free_lock_is_acquired_at_once(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        lease = await cluster.locks.acquire(KEY, timeout=0)

        assert lease.key == KEY
        assert lease.state is LeaseState.HELD
        assert lease.fence > 0
        assert not lease.lost.is_set()
        await lease.release()
        assert await cluster.locks.inspect(KEY) is None

    async def test_trying_a_held_lock_returns_none_at_once(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        loop = asyncio.get_running_loop()

        async with first.locks.hold(KEY):
            begun = loop.time()
            assert await second.locks.try_acquire(KEY) is None
            assert loop.time() - begun < 5

    async def test_trying_may_wait_a_while(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        holder = await first.locks.acquire(KEY)

        async with asyncio.TaskGroup() as group:
            trying = group.create_task(second.locks.try_acquire(KEY, timeout=10))
            await bench.waiting(second)
            await holder.release()

        lease = trying.result()
        assert lease is not None
        await lease.release()

    async def test_a_timeout_says_how_long_was_waited(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold(KEY):
            with pytest.raises(LockTimeout) as found:
                await second.locks.acquire(KEY, timeout=timedelta(seconds=0.2))

        assert found.value.key == KEY
        assert found.value.waited == pytest.approx(0.2, abs=0.15)
        assert isinstance(found.value, TimeoutError)

    async def test_the_timeout_counts_the_wait_within_the_instance_too(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        loop = asyncio.get_running_loop()

        async with cluster.locks.hold(KEY):
            begun = loop.time()
            async with asyncio.TaskGroup() as group:
                waiters = [
                    group.create_task(cluster.locks.try_acquire(KEY, timeout=0.2)) for _ in range(5)
                ]
            assert 0.1 < loop.time() - begun < 5

        assert [waiter.result() for waiter in waiters] == [None] * 5

    async def test_however_many_wait_in_vain_each_is_told_that_it_is_held(
        self, bench: Bench
    ) -> None:
        first, second = await bench.clusters(2)

        silent = 0  # tries in which the server was too busy to answer, as it may be

        async def come(number: int) -> Lease | None:  # when one gives up, the next is about to
            nonlocal silent
            await asyncio.sleep(number * 0.002)
            try:
                return await second.locks.try_acquire(KEY, timeout=1.5)
            except LockUnavailable:
                silent += 1
                return None

        async with first.locks.hold(KEY), asyncio.TaskGroup() as group:
            tries = [group.create_task(come(number)) for number in range(400)]

        assert {attempt.result() for attempt in tries} == {None}
        assert silent < 20

    async def test_the_default_timeout_is_the_settings(self, bench: Bench) -> None:
        first, second = await bench.clusters(2, timeout=0.1)

        async with first.locks.hold(KEY):
            with pytest.raises(LockTimeout):
                await second.locks.acquire(KEY)

    async def test_a_timed_out_wait_leaves_nothing_behind(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        holder = await first.locks.acquire(KEY)

        assert await second.locks.try_acquire(KEY, timeout=0.1) is None
        await holder.release()

        await bench.free(first, KEY)
        assert second.locks.stats().waiting == 0

    async def test_a_cancelled_wait_leaves_nothing_behind(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        holder = await first.locks.acquire(KEY)

        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(second.locks.acquire(KEY))
            await bench.waiting(second)
            waiter.cancel()
        await holder.release()

        assert waiter.cancelled()
        await bench.free(first, KEY)

    async def test_an_acquisition_cancelled_at_any_moment_leaves_nothing_behind(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()

        for turns in range(12):
            async with asyncio.TaskGroup() as group:
                attempt = group.create_task(cluster.locks.acquire(KEY))
                for _ in range(turns):
                    await asyncio.sleep(0)
                attempt.cancel()
            if not attempt.cancelled():
                await attempt.result().release()
            await bench.free(cluster, KEY)

    async def test_the_same_task_is_not_let_wait_for_itself(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY) as lease:
            with pytest.raises(LockAlreadyHeld) as found:
                await cluster.locks.acquire(KEY)
            with pytest.raises(LockAlreadyHeld):
                await cluster.locks.try_acquire(KEY)
            lease.check()

        assert not found.value.retryable

    async def test_a_child_task_is_somebody_else(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY), asyncio.TaskGroup() as group:
            child = group.create_task(cluster.locks.try_acquire(KEY))

        assert child.result() is None

    async def test_a_reentrant_acquisition_shares_the_lock(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold(KEY) as outer:
            async with first.locks.hold(KEY, reentrant=True) as inner:
                assert inner.fence == outer.fence
            outer.check()
            assert inner.state is LeaseState.RELEASED
            assert await second.locks.try_acquire(KEY) is None

        assert await second.locks.inspect(KEY) is None

    async def test_releasing_the_inner_lease_twice_does_not_release_the_outer(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        outer = await cluster.locks.acquire(KEY)
        inner = await cluster.locks.acquire(KEY, reentrant=True)

        await inner.release()
        await inner.release()

        outer.check()
        await outer.release()
        assert await cluster.locks.inspect(KEY) is None

    async def test_several_locks_are_taken_in_one_order(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        done: list[str] = []

        async def swap(index: int, *keys: str) -> None:
            for _ in range(5):
                async with (first, second)[index].locks.multi(keys) as lease:
                    assert list(lease.fences) == sorted(keys)
                    await asyncio.sleep(0)
            done.append(keys[0])

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(swap(0, "b", "a"))
            group.create_task(swap(1, "a", "b"))

        assert sorted(done) == ["a", "b"]

    async def test_several_locks_or_none(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold("b"):
            with pytest.raises(LockTimeout):
                async with second.locks.multi(["a", "b", "c"], timeout=0.5):
                    raise AssertionError

        assert [await first.locks.inspect(key) for key in "abc"] == [None] * 3

    @pytest.mark.parametrize(
        "wrong",
        [
            *({"ttl": 0}, {"ttl": -1}, {"ttl": float("nan")}, {"ttl": True}, {"ttl": "5"}),
            *({"ttl": timedelta(days=31)}, {"timeout": -1}, {"timeout": float("inf")}),
            *({"max_hold": 0}, {"renew": 1}, {"reentrant": None}),
        ],
        ids=str,
    )
    async def test_a_wrong_option_is_refused(self, bench: Bench, wrong: dict[str, Any]) -> None:
        cluster = await bench.cluster()

        with pytest.raises(ConfigurationError):
            await cluster.locks.acquire(KEY, **wrong)
        assert await cluster.locks.inspect(KEY) is None

    @pytest.mark.parametrize("key", ["", "a b", "a\r\nflush_all", "x" * 201, "a*", 7, None])
    async def test_a_wrong_key_is_refused(self, bench: Bench, key: object) -> None:
        cluster = await bench.cluster()

        with pytest.raises(InvalidNameError):
            await cluster.locks.acquire(cast("str", key))

    async def test_a_cluster_that_does_not_run_has_no_locks(self, bench: Bench) -> None:
        cluster = await bench.cluster(start=False)

        with pytest.raises(NotStartedError):
            await cluster.locks.acquire(KEY)
        await cluster.start()
        await cluster.stop()
        with pytest.raises(NotStartedError):
            await cluster.locks.try_acquire(KEY)

    @pytest.mark.needs("holder_named")
    async def test_who_holds_a_lock_can_be_seen(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async with first.locks.hold(KEY, ttl=20) as lease:
            holder = await second.locks.inspect(KEY)
            assert holder is not None
            assert first.instance_id in holder.owner
            assert holder.fence == lease.fence
            assert holder.seconds_left is None or 0 < holder.seconds_left <= 20
