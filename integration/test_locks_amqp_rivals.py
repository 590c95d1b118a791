"""Instances that use a lock on RabbitMQ in the same moment: a new one, or one that is free."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.locks.names import lock_queue
from integration.amqp_bench import raw_channel
from integration.test_locks_amqp import KEY, Place

pytestmark = pytest.mark.broker


@pytest.fixture
def place(contract_vhost: str) -> Place:
    return Place(contract_vhost, f"test-{uuid.uuid4().hex[:8]}")


@pytest_asyncio.fixture
async def instances(place: Place) -> AsyncIterator[list[Cluster]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(place.instance()) for _ in range(3)]


async def use(cluster: Cluster, key: str) -> None:
    async with cluster.locks.hold(key, timeout=10):
        pass


@pytest.mark.asyncio
async def test_new_keys_that_several_use_at_once_cost_nobody_a_lock(
    instances: list[Cluster],
) -> None:
    held = [await cluster.locks.acquire(f"held-{n}") for n, cluster in enumerate(instances)]

    for turn in range(6):
        async with asyncio.TaskGroup() as group:
            for cluster in instances:
                group.create_task(use(cluster, f"{turn}-one"))
                group.create_task(use(cluster, f"{turn}-two"))

    assert [lease.state for lease in held] == [LeaseState.HELD] * len(held)
    for lease in held:
        await lease.release()


@pytest.mark.asyncio
@pytest.mark.parametrize("timeout", [0, 0.95])
async def test_who_is_a_little_late_for_a_free_key_hears_that_another_has_it(
    instances: list[Cluster], timeout: float
) -> None:
    for cluster in instances:
        await use(cluster, KEY)

    for _ in range(5):
        got = await asyncio.gather(
            *(cluster.locks.try_acquire(KEY, timeout=timeout, ttl=5.7) for cluster in instances)
        )

        leases = [lease for lease in got if isinstance(lease, Lease)]
        assert len(leases) == 1
        await leases[0].release()


@pytest.mark.asyncio
async def test_who_comes_together_is_served_in_the_order_of_coming(
    instances: list[Cluster],
) -> None:
    locks, served = instances[0].locks, list[int]()

    async def wait(number: int) -> None:
        async with locks.hold(KEY):
            served.append(number)

    for _ in range(5):
        served.clear()
        holder = await locks.acquire(KEY)
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(wait(number))
            await eventually(lambda: locks.stats().waiting == 12)
            await holder.release()

        assert served == [*range(12)]


@pytest.mark.asyncio
async def test_who_gives_up_while_getting_in_line_lets_nobody_overtake(
    instances: list[Cluster],
) -> None:
    locks, served = instances[0].locks, list[int]()

    async def wait(number: int) -> None:
        async with locks.hold(KEY):
            served.append(number)

    for turn in range(8):
        served.clear()
        holder = await locks.acquire(KEY)
        waiters = [asyncio.ensure_future(wait(number)) for number in range(12)]
        await asyncio.sleep(0.002 * turn)  # in another step of theirs each time
        for number in (2, 3, 7):
            waiters[number].cancel()
        await eventually(lambda: locks.stats().waiting == 9)
        await holder.release()
        await asyncio.wait(waiters)

        assert served == [0, 1, 4, 5, 6, 8, 9, 10, 11]


@pytest.mark.asyncio
async def test_keys_that_the_broker_has_forgotten_are_used_at_once_by_all_who_knew_them(
    instances: list[Cluster], place: Place
) -> None:
    keys = ["one", "two"]
    for cluster in instances:
        for key in keys:
            await use(cluster, key)
    held = [await cluster.locks.acquire(f"held-{n}") for n, cluster in enumerate(instances)]

    for _ in range(6):
        async with raw_channel(place.url) as channel:
            for key in keys:
                await channel.queue_delete(lock_queue(f"{place.app}.{key}"))
        async with asyncio.TaskGroup() as group:
            for number, cluster in enumerate(instances):
                for key in keys:
                    group.create_task(use(cluster, key))
                await asyncio.sleep(0.005 * number)

    assert [lease.state for lease in held] == [LeaseState.HELD] * len(held)
    for lease in held:
        await lease.release()
