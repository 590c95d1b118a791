"""Acquisitions on RabbitMQ whose grant nobody hears of leave no lock behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import LockTimeout, LockUnavailable
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.locks.contender import AmqpContender
from integration.test_locks_amqp import KEY, Place, counts, is_free

pytestmark = pytest.mark.broker

TAKEN = (0, 1)  # no token in the queue, and one consumer who has it


@pytest.fixture
def place(contract_vhost: str) -> Place:
    return Place(contract_vhost, f"test-{uuid.uuid4().hex[:8]}")


@pytest_asyncio.fixture
async def proxy(place: Place) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(place.url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def cluster(place: Place, proxy: FaultProxy) -> AsyncIterator[Cluster]:
    async with place.instance(proxy.url) as cluster:
        yield cluster


async def is_taken(place: Place) -> bool:
    return await counts(place) == TAKEN


async def stays_free(place: Place) -> None:
    """One second later nobody has it, although the ttl of an orphan would be far from over."""
    await eventually(lambda: is_free(place), timeout=20)
    await asyncio.sleep(1)
    assert await is_free(place)


@pytest.mark.asyncio
@pytest.mark.parametrize("timeout", [3, 60], ids=["out of time", "cancelled"])
async def test_a_grant_whose_answer_is_dropped_leaves_no_orphan(
    place: Place,
    proxy: FaultProxy,
    cluster: Cluster,
    timeout: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_line, changed = asyncio.Event(), AmqpContender.changed

    async def tell(contender: AmqpContender) -> None:
        in_line.set()
        await changed(contender)

    async with place.instance() as holder:
        lease = await holder.locks.acquire(KEY)
        monkeypatch.setattr(AmqpContender, "changed", tell)
        waiter = asyncio.ensure_future(cluster.locks.acquire(KEY, timeout=timeout))
        await in_line.wait()
        proxy.freeze("to_client")
        await lease.release()
        await eventually(lambda: is_taken(place))

        if timeout == 60:
            waiter.cancel()
        with pytest.raises((LockTimeout, LockUnavailable, asyncio.CancelledError)):
            await waiter
        assert waiter.cancelled() == (timeout == 60)
        proxy.resume()  # the grant is heard of now, by a connection that goes on

        await stays_free(place)


@pytest.mark.asyncio
async def test_acquisitions_cancelled_at_every_moment_leave_no_orphan(
    place: Place, proxy: FaultProxy, cluster: Cluster
) -> None:
    async with cluster.locks.hold(KEY):
        pass  # the queue is there now
    proxy.delay(0.002)
    for turn in range(60):
        waiter = asyncio.ensure_future(cluster.locks.acquire(KEY, timeout=20))
        await asyncio.sleep(turn * 0.0005)
        waiter.cancel()
        with suppress(asyncio.CancelledError):
            await (await waiter).release()

    await stays_free(place)


@pytest.mark.asyncio
async def test_an_acquisition_that_ran_out_of_time_leaves_no_orphan(
    place: Place, proxy: FaultProxy, cluster: Cluster
) -> None:
    async with place.instance() as holder:
        lease = await holder.locks.acquire(KEY)
        with pytest.raises((LockTimeout, LockUnavailable)):
            await cluster.locks.acquire(KEY, timeout=0.3)
        proxy.delay(0.05)
        with pytest.raises((LockTimeout, LockUnavailable)):
            await cluster.locks.acquire(KEY, timeout=0.03)
        await lease.release()

        await stays_free(place)


@pytest.mark.broker_control
@pytest.mark.asyncio
async def test_who_gives_up_looking_leaves_no_channel(rabbitmq_server: RabbitServer) -> None:
    place = Place(rabbitmq_server.new_url(), "shop")
    columns = ("--quiet", "list_connections", "vhost", "channels")

    def channels() -> int:
        rows = map(str.split, rabbitmq_server.ctl(*columns).splitlines())
        return sum(int(row[1]) for row in rows if row[0] == place.url.rpartition("/")[2])

    async with place.instance() as holder, place.instance() as other, holder.locks.hold(KEY):
        assert await other.locks.inspect(KEY)
        before = await asyncio.to_thread(channels)
        for number in range(20):
            with suppress(TimeoutError):
                await asyncio.wait_for(other.locks.inspect(KEY), 0.002 * number)
        await eventually(lambda: asyncio.to_thread(channels), lambda now: now <= before + 2)
