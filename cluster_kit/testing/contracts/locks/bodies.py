"""Scenarios: what happens to the code a lock protects."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError, LockLost
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.contracts.locks.base import KEY, Scenarios
from cluster_kit.testing.contracts.locks.bench import Bench, Room

_LONG = 60.0


@pytest.mark.asyncio
class BodyScenarios(Scenarios):
    """It runs alone, and not beyond its lock."""

    async def test_a_body_is_cancelled_when_its_lock_is_lost(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[LeaseState] = []

        async def body(lease: Lease) -> None:
            try:
                await asyncio.sleep(_LONG)
            finally:
                seen.append(lease.state)

        with pytest.raises(LockLost):
            await self._hold(cluster, body)

        assert seen == [LeaseState.LOST]
        await asyncio.sleep(0)  # the cancellation is used up

    async def test_a_body_ends_before_the_next_one_begins(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        room, in_first = Room(), asyncio.Event()

        async def visit(lease: Lease) -> None:
            in_first.set()
            await room.visit(lease, _LONG)

        async def overstay() -> None:
            with pytest.raises(LockLost):
                await self._hold(first, visit)

        async def follow() -> None:
            await in_first.wait()
            async with second.locks.hold(KEY) as lease:
                await room.visit(lease)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(overstay())
            group.create_task(follow())

        assert len(room.fences) == 2
        assert room.most == 1

    async def test_a_body_that_swallows_its_cancellation_hears_of_the_loss(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()

        async def body(_lease: Lease) -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(_LONG)

        with pytest.raises(LockLost):
            await self._hold(cluster, body)

    async def test_an_error_of_the_body_wins_over_the_loss(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async def body(_lease: Lease) -> None:
            try:
                await asyncio.sleep(_LONG)
            except asyncio.CancelledError as exc:
                raise ZeroDivisionError from exc

        with pytest.raises(ZeroDivisionError):
            await self._hold(cluster, body)

    async def test_an_error_of_the_body_frees_the_lock_and_is_raised(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        with pytest.raises(ZeroDivisionError):
            async with cluster.locks.hold(KEY):
                raise ZeroDivisionError

        assert await cluster.locks.inspect(KEY) is None

    async def test_a_foreign_cancellation_wins_over_the_loss(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lost = asyncio.Event()

        async def body() -> None:
            async with cluster.locks.hold(KEY, ttl=self.ttl, renew=False):
                try:
                    await asyncio.sleep(_LONG)
                finally:
                    lost.set()
                    await asyncio.sleep(_LONG)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(body())
            await lost.wait()
            task.cancel()

        assert task.cancelled()

    async def test_a_cancelled_body_frees_the_lock(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        inside = asyncio.Event()

        async def body() -> None:
            async with cluster.locks.hold(KEY):
                inside.set()
                await asyncio.sleep(_LONG)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(body())
            await inside.wait()
            task.cancel()

        assert task.cancelled()
        await bench.free(cluster, KEY)

    async def test_a_timeout_around_a_lock_is_a_timeout(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), cluster.locks.hold(KEY):
                await asyncio.sleep(_LONG)

        await bench.free(cluster, KEY)

    async def test_a_timeout_in_a_body_is_a_timeout(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY) as lease:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asyncio.sleep(_LONG)
            lease.check()

    async def test_a_body_that_comes_back_from_a_blocked_loop_hears_of_the_loss(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()

        with pytest.raises(LockLost):
            async with cluster.locks.hold(KEY, ttl=self.ttl):
                time.sleep(self.ttl + 0.1)  # noqa: ASYNC251 - what a careless body does

    async def test_a_body_that_asks_after_a_blocked_loop_is_not_cancelled_besides(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()

        async def body(lease: Lease) -> None:
            time.sleep(self.ttl + 0.1)  # noqa: ASYNC251 - what a careless body does
            lease.check()

        with pytest.raises(LockLost, match="lost: its time is over"):
            await self._hold(cluster, body)
        await asyncio.sleep(0)

    async def test_a_lease_got_without_a_body_cancels_nothing(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY, ttl=self.ttl, renew=False)

        await lease.lost.wait()
        await asyncio.sleep(0.05)

        assert lease.state is LeaseState.LOST
        await lease.release()

    async def test_a_lease_can_be_given_a_body_later(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        lease = await cluster.locks.acquire(KEY, ttl=self.ttl, renew=False)

        with pytest.raises(LockLost):
            async with lease:
                await asyncio.sleep(_LONG)
        with pytest.raises(LockLost):
            async with lease:
                raise AssertionError

    async def test_nested_locks_tell_which_one_was_lost(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        locks = cluster.locks
        with pytest.raises(LockLost) as found:
            async with locks.hold("outer", ttl=self.ttl, renew=False), locks.hold("inner"):
                await asyncio.sleep(_LONG)

        assert found.value.key == "outer"
        await bench.free(cluster, "inner")

    async def test_several_locks_lost_at_once_are_one_loss(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        with pytest.raises(LockLost):
            async with cluster.locks.multi(list("abc"), ttl=self.ttl, renew=False) as lease:
                await self._outlive(lease.valid_for())
        await asyncio.sleep(0)

        for key in "abc":
            await bench.free(cluster, key)

    async def test_a_function_runs_alone_and_its_result_is_returned(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)

        async def work() -> int:
            assert await second.locks.try_acquire(KEY) is None
            return 17

        assert await first.locks.run_exclusive(KEY, work) == 17
        assert await second.locks.inspect(KEY) is None

    async def test_a_sync_function_runs_in_a_thread(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        ran_in = await cluster.locks.run_exclusive(KEY, threading.get_ident)
        awaited = await cluster.locks.run_exclusive(KEY, partial(_answer, "slept"))

        assert ran_in != threading.get_ident()
        assert awaited == "slept"

    async def test_functions_never_run_two_at_once(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        inside = most = 0

        async def work() -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.005)
            inside -= 1

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                cluster: Cluster = clusters[number % 2]
                group.create_task(cluster.locks.run_exclusive(KEY, work, ttl=self.ttl))

        assert most == 1

    async def test_a_function_does_not_outlive_its_lock_in_silence(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(_LONG)
            finally:
                ended.append("ended")

        with pytest.raises(LockLost):
            await cluster.locks.run_exclusive(KEY, work, ttl=self.ttl, renew=False)

        assert ended == ["ended"]

    async def test_what_is_no_function_is_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        no_function: Any = 5

        with pytest.raises(ConfigurationError):
            await cluster.locks.run_exclusive(KEY, no_function)
        assert await cluster.locks.inspect(KEY) is None

    async def test_a_lease_protects_one_body_at_a_time(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async with cluster.locks.hold(KEY) as lease:
            await self._refused(lease)
            lease.check()

    async def _hold(self, cluster: Cluster, body: Callable[[Lease], Awaitable[None]]) -> None:
        async with cluster.locks.hold(KEY, ttl=self.ttl, renew=False) as lease:
            await body(lease)

    @staticmethod
    async def _refused(lease: Lease) -> None:
        with pytest.raises(RuntimeError):
            await lease.__aenter__()

    @staticmethod
    async def _outlive(seconds: float) -> None:
        await asyncio.sleep(seconds + _LONG)


async def _answer(answer: str) -> str:
    await asyncio.sleep(0)
    return answer
