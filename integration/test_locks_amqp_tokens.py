"""Tokens of locks on RabbitMQ that come late, twice, or never."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiormq
import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import LockUnavailable
from cluster_kit.locks import LeaseState
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import LinkDown
from cluster_kit_amqp.locks import session
from cluster_kit_amqp.locks.desk import Desk
from integration.test_locks_amqp import KEY, Place, is_free

pytestmark = pytest.mark.broker


@pytest.fixture
def place(contract_vhost: str) -> Place:
    return Place(contract_vhost, f"test-{uuid.uuid4().hex[:8]}")


@pytest_asyncio.fixture
async def cluster(place: Place) -> AsyncIterator[Cluster]:
    async with place.instance() as cluster:
        yield cluster


@pytest_asyncio.fixture
async def seeding(place: Place) -> AsyncIterator[Desk]:
    """What brings tokens whenever the test wants."""
    tasks, emit = Supervisor(), Telemetry().emit
    context = AdapterContext(app=place.app, instance_id="seeds", tasks=tasks, emit=emit)
    desk = Desk(place.url, context)
    await desk.connections.open()
    yield desk
    await desk.close()


@pytest.mark.asyncio
async def test_renewals_that_are_given_up_cost_others_nothing(place: Place) -> None:
    async with FaultProxy(place.url) as proxy, place.instance(proxy.url) as cluster:
        kept = await cluster.locks.acquire("kept")
        other = await cluster.locks.acquire("other")
        await kept.extend(30)  # there is a channel for it now
        proxy.delay(0.1)
        async with asyncio.TaskGroup() as group:
            given_up = group.create_task(other.extend(30))
            group.create_task(kept.extend(30))
            await asyncio.sleep(0.02)  # both are on their way
            given_up.cancel()

        assert kept.state is LeaseState.HELD
        assert cluster.locks.stats().suspect == 0


@pytest.mark.asyncio
async def test_a_token_that_could_not_be_brought_is_brought_by_the_next_attempt(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed, failures = Desk.seed, [LinkDown("back in a moment")]

    async def failing(self: Desk, name: str, *, base: int | None = None) -> None:
        if failures:
            raise failures.pop()
        await seed(self, name, base=base)

    monkeypatch.setattr(Desk, "seed", failing)

    lease = await cluster.locks.acquire(KEY, timeout=4)  # in line one seeds after 5 s and more

    assert not failures
    await lease.release()


@pytest.mark.slow
@pytest.mark.broker_control
@pytest.mark.asyncio
async def test_a_broker_that_takes_no_message_takes_no_lock_from_its_holder(
    own_rabbitmq: str, own_rabbitmq_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TOKEN_SECONDS", 0.0)  # each renewal wants a fresh one
    place = Place(own_rabbitmq, f"test-{uuid.uuid4().hex[:8]}")
    numbers = itertools.count()

    async def takes_none() -> bool:
        try:
            await one.locks.try_acquire(f"new-{next(numbers)}", ttl=3)
        except LockUnavailable:
            return True
        return False

    async with place.instance() as one, place.instance() as other:
        lease = await one.locks.acquire(KEY, ttl=3)
        waiter = asyncio.ensure_future(other.locks.acquire(KEY, ttl=3, timeout=60))
        await asyncio.to_thread(own_rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            await eventually(takes_none, timeout=20)
            await asyncio.sleep(4)  # longer than its ttl
            assert lease.state is LeaseState.HELD
            await lease.release()
            await (await waiter).release()
        finally:
            await asyncio.to_thread(own_rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.4")
        async with one.locks.hold("new", timeout=30):
            pass


@pytest.mark.asyncio
async def test_tokens_too_many_stay_with_nobody(
    place: Place, cluster: Cluster, seeding: Desk
) -> None:
    fences = list[int]()
    for turn in range(90):
        lease = await cluster.locks.acquire(KEY, timeout=20)
        fences.append(lease.fence)
        async with asyncio.TaskGroup() as group:
            group.create_task(seeding.seed(f"{place.app}.{KEY}"))
            await asyncio.sleep(turn % 15 * 0.0005)
            await lease.release()

    assert fences == sorted(set(fences))
    await eventually(lambda: is_free(place))


async def put(place: Place, base: int) -> None:
    """Have this instead of the token, as somebody who writes to the queue."""
    connection = await aiormq.connect(place.url)
    try:
        channel = await connection.channel()
        queue = f"ck.v1.lock.{place.app}.{KEY}"
        await eventually(lambda: is_free(place))
        await channel.queue_purge(queue)
        properties = aiormq.spec.Basic.Properties(headers={"ck-base": base})
        await channel.basic_publish(
            b"", exchange="ck.v1.locks", routing_key=queue, properties=properties
        )
        await eventually(lambda: is_free(place))
    finally:
        await connection.close()


@pytest.mark.asyncio
async def test_a_fence_that_went_back_is_not_given_out_where_a_greater_one_was_seen(
    place: Place, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster.locks.hold(KEY) as lease:
        before = lease.fence
    await put(place, 5)

    async with place.instance() as other:

        async def grows() -> bool:
            """Of the other, who has not seen what was before, once the token is changed."""
            async with cluster.locks.hold(KEY, timeout=20) as lease:
                assert lease.fence > before
                fence = lease.fence
            async with other.locks.hold(KEY, timeout=20) as lease:
                return lease.fence > fence

        await eventually(grows)
    assert [text for text in caplog.messages if "went back" in text]


@pytest.mark.asyncio
@pytest.mark.parametrize("base", [-5, True, 2**62])
async def test_a_token_that_is_none_is_worth_nothing(
    place: Place, cluster: Cluster, base: int
) -> None:
    async with cluster.locks.hold(KEY) as lease:
        before = lease.fence
    await put(place, base)

    async with cluster.locks.hold(KEY, timeout=60) as lease:
        assert before < lease.fence < 2**53


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_crowd_for_many_locks_gets_in_line_and_costs_no_holder_its_own(
    cluster: Cluster,
) -> None:
    got = set[str]()

    async def wait(key: str) -> None:
        await cluster.locks.acquire(key, timeout=40)
        got.add(key)

    async with cluster.locks.hold("own", ttl=3) as own:
        crowd = [asyncio.ensure_future(wait(f"k{n % 80}")) for n in range(1280)]
        await eventually(lambda: len(got) == 80, timeout=35)
        assert own.state is LeaseState.HELD
        for waiter in crowd:
            waiter.cancel()
        await asyncio.wait(crowd)
