from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiormq
import pytest
import pytest_asyncio

from cluster_kit import Cluster, Settings
from cluster_kit.errors import LockLost, LockUnavailable
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.locks.possession import Possession
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.locks import names, session

pytestmark = pytest.mark.broker

KEY = "schema"


@dataclass(frozen=True)
class Place:
    """A virtual host, and an application of one test's own in it."""

    url: str
    app: str

    def instance(self, url: str = "") -> Cluster:
        settings = Settings(event_queue={"url": "memory://"}, locks={"url": url or self.url})
        return Cluster(self.app, settings=settings)


@pytest.fixture
def place(contract_vhost: str) -> Place:
    return Place(contract_vhost, f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def own_place(own_rabbitmq: str) -> Place:
    """On a node that may be stopped."""
    return Place(own_rabbitmq, f"test-{uuid.uuid4().hex[:8]}")


async def counts(place: Place) -> tuple[int, int] | None:
    """Messages that are ready and consumers of the lock's queue; None when there is no queue."""
    connection = await aiormq.connect(place.url)
    try:
        channel = await connection.channel()
        with contextlib.suppress(aiormq.exceptions.ChannelNotFoundEntity):
            declared = await channel.queue_declare(f"ck.v1.lock.{place.app}.{KEY}", passive=True)
            return declared.message_count or 0, declared.consumer_count or 0
        return None
    finally:
        await connection.close()


async def is_free(place: Place) -> bool:
    return await counts(place) == (1, 0)


@pytest_asyncio.fixture
async def pair(place: Place) -> AsyncIterator[tuple[Cluster, Cluster]]:
    async with place.instance() as first, place.instance() as second:
        yield first, second


@pytest.mark.asyncio
async def test_with_a_broker_alone_locks_are_there_and_cost_nothing_before_the_first(
    place: Place,
) -> None:
    settings = Settings(amqp_url=place.url)
    async with Cluster(place.app, settings=settings) as cluster:
        assert cluster.locks.capabilities().backend == "amqp"
        assert cluster.health()["adapters"]["locks"]["detail"] == "not used yet"
        assert await counts(place) is None

        async with cluster.locks.hold(KEY):
            assert "connected to" in cluster.health()["adapters"]["locks"]["detail"]


@pytest.mark.asyncio
async def test_what_was_given_up_leaves_nothing_at_the_broker(
    place: Place, pair: tuple[Cluster, Cluster]
) -> None:
    first, second = pair
    holder = await first.locks.acquire(KEY)
    assert await second.locks.try_acquire(KEY) is None
    assert await second.locks.try_acquire(KEY, timeout=0.1) is None
    async with asyncio.TaskGroup() as group:
        cancelled = group.create_task(second.locks.acquire(KEY))
        await eventually(lambda: second.locks.stats().waiting)
        cancelled.cancel()

    await holder.release()

    await eventually(lambda: is_free(place))
    async with second.locks.hold(KEY, timeout=0) as lease:
        assert lease.fence


@pytest.mark.asyncio
@pytest.mark.broker_control
async def test_hundreds_who_wait_cost_other_holders_nothing_and_are_served_in_order(
    place: Place, pair: tuple[Cluster, Cluster], rabbitmq_server: RabbitServer
) -> None:
    cluster, _ = pair
    served = list[int]()

    async def wait(number: int) -> None:
        async with cluster.locks.hold(KEY, timeout=60):
            served.append(number)

    async def several() -> int:
        """How many the broker knows of, once they are many."""
        vhost = place.url.rpartition("/")[2]
        ask = ("--quiet", "list_consumers", "-p", vhost, "queue_name")
        told = await asyncio.to_thread(rabbitmq_server.ctl, *ask)
        found = told.count(f"ck.v1.lock.{place.app}.{KEY}")
        return found if found >= 10 else 0

    async with cluster.locks.hold("other", ttl=3) as other:
        holder = await cluster.locks.acquire(KEY)
        async with asyncio.TaskGroup() as group:
            for number in range(400):
                group.create_task(wait(number))
            assert await eventually(several) <= 20
            await holder.release()
        assert other.state is LeaseState.HELD

    # Those who are on their way to the broker at the same moment may pass each other.
    assert max(abs(turn - number) for turn, number in enumerate(served)) <= 40
    assert sorted(served) == list(range(400))
    assert cluster.locks.stats().suspect == 0
    await eventually(lambda: is_free(place))


@pytest.mark.asyncio
async def test_an_answer_that_never_comes_leaves_nothing_at_the_broker(place: Place) -> None:
    async with (
        FaultProxy(f"{place.url}?heartbeat=1") as proxy,
        place.instance(proxy.url) as cluster,
    ):
        async with cluster.locks.hold(KEY):
            pass
        proxy.freeze("to_client")
        assert await tries_in_vain(cluster)
        proxy.cut()
        proxy.resume()

        await eventually(lambda: is_free(place))
        async with cluster.locks.hold(KEY):
            pass


async def tries_in_vain(cluster: Cluster) -> bool:
    try:
        return await cluster.locks.try_acquire(KEY, timeout=0.3) is None
    except Exception:  # noqa: BLE001 - whatever it was told
        return True


@pytest.mark.asyncio
async def test_a_grant_that_came_too_late_is_asked_for_again_and_not_waited_for(
    pair: tuple[Cluster, Cluster], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    answers = iter([True, False])
    with monkeypatch.context() as patch:
        patch.setattr(Possession, "too_late", property(lambda _: next(answers)))
        lease = await first.locks.acquire(KEY, timeout=10)

    await lease.extend(30)
    assert await second.locks.try_acquire(KEY) is None
    await lease.release()
    await eventually(lambda: is_free(place))


@pytest.mark.asyncio
async def test_a_lock_nobody_uses_is_forgotten_and_made_again(
    place: Place, pair: tuple[Cluster, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "IDLE_SECONDS", 1)
    first, _ = pair
    async with first.locks.hold(KEY) as lease:
        before = lease.fence
        await asyncio.sleep(1.5)
        lease.check()  # in use

    async def forgotten() -> bool:
        return await counts(place) is None

    await eventually(forgotten, timeout=30)
    async with first.locks.hold(KEY, timeout=0) as lease:
        assert lease.fence > before


@pytest.mark.asyncio
async def test_a_queue_that_may_not_be_made_is_missed_and_not_waited_for(place: Place) -> None:
    async with place.instance() as cluster:  # makes what the locks of all applications share
        assert await cluster.locks.try_acquire("another")
    for mode in ("none", "passive"):
        async with place.instance(f"{place.url}?declare={mode}") as cluster:
            with pytest.raises(LockUnavailable, match=f"ck.v1.lock.{place.app}.{KEY}"):
                await cluster.locks.acquire(KEY, timeout=0)


@pytest.mark.asyncio
async def test_a_token_that_was_held_for_long_is_changed_for_a_fresh_one(
    pair: tuple[Cluster, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TOKEN_SECONDS", 0.2)
    first, second = pair
    async with first.locks.hold(KEY, ttl=0.6) as lease:
        fence = lease.fence
        for _ in range(4):
            await asyncio.sleep(0.4)
            assert lease.fence == fence
            assert await second.locks.try_acquire(KEY) is None

    async with second.locks.hold(KEY, timeout=5) as lease:
        assert lease.fence > fence + 1


@pytest.mark.own_broker
@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_lock_is_held_for_longer_than_the_broker_waits_for_an_acknowledgement(
    own_place: Place, own_rabbitmq_server: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def let(timeout: int, tick: int) -> None:
        text = (
            f"application:set_env(rabbit, consumer_timeout, {timeout}), "
            f"application:set_env(rabbit, channel_tick_interval, {tick})."
        )
        await asyncio.to_thread(own_rabbitmq_server.ctl, "eval", text)

    await let(1500, 300)
    try:
        async with own_place.instance() as cluster:
            stale = await cluster.locks.acquire("other")
            monkeypatch.setattr(session, "TOKEN_SECONDS", 0.4)
            async with cluster.locks.hold(KEY, ttl=0.6) as lease:
                async with asyncio.timeout(20):
                    await stale.lost.wait()  # whose token is as old as tokens may get by default
                await asyncio.sleep(2)
                assert lease.state is LeaseState.HELD
    finally:
        await let(1_800_000, 60_000)


@pytest.mark.own_broker
@pytest.mark.slow
@pytest.mark.timeout(240)  # seconds; stopping and starting a node takes 10 to 60
@pytest.mark.asyncio
async def test_a_restart_of_the_node_ends_what_is_held_and_keeps_who_waits(
    own_place: Place, own_rabbitmq_server: RabbitServer
) -> None:
    async with own_place.instance() as first, own_place.instance() as second:
        async with asyncio.TaskGroup() as group:
            fence = await lost_by(first, group, second, own_rabbitmq_server)
        await eventually(lambda: first.health()["status"] == "ok", timeout=60)
        async with first.locks.hold(KEY, timeout=60) as lease:
            assert lease.fence > fence


async def lost_by(
    first: Cluster, group: asyncio.TaskGroup, second: Cluster, server: RabbitServer
) -> int:
    """Restart the node while one holds the lock and another waits; return the latter's fence."""
    lease = await first.locks.acquire(KEY)
    before = lease.fence
    waiter = group.create_task(second.locks.acquire(KEY, timeout=180))
    await eventually(lambda: second.locks.stats().waiting)
    await asyncio.sleep(5)  # 3.10 may lose the leader of a queue that is younger than some seconds
    restart = group.create_task(asyncio.to_thread(server.restart))
    async with asyncio.timeout(100):
        await lease.lost.wait()
    with pytest.raises(LockLost):
        lease.check()
    await restart
    other = await waiter
    fence = other.fence
    assert fence > before
    await other.release()
    return fence


@pytest.mark.asyncio
async def test_a_thousand_releases_racing_renewals_leave_no_zombie(
    pair: tuple[Cluster, Cluster],
) -> None:
    first, _ = pair

    async def race(number: int) -> None:
        for turn in range(40):
            # Of a zombie the ttl would not be over yet.
            lease = await first.locks.acquire(f"{KEY}.{number}", ttl=60, timeout=20)
            async with asyncio.TaskGroup() as group:
                group.create_task(extend(lease))
                for _ in range(turn % 10):
                    await asyncio.sleep(0)
                group.create_task(lease.release())

    async with asyncio.TaskGroup() as group:
        for number in range(25):
            group.create_task(race(number))

    assert [await first.locks.inspect(f"{KEY}.{n}") for n in range(25)] == [None] * 25
    assert first.locks.stats().held == 0


async def extend(lease: Lease) -> None:
    with contextlib.suppress(LockLost):  # the release may have been first
        await lease.extend(60)
