from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import pytest_asyncio

from cluster_kit import Cluster, Settings
from cluster_kit.errors import LifecycleError, LockLost
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.ports import CacheStore
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.recorder import Recorder

pytestmark = pytest.mark.asyncio

Call = Callable[[Cluster], Awaitable[object]]
CALLS: dict[str, Call] = {
    "publish": lambda c: c.event_queue.publish("work", 2),
    "publish_many": lambda c: c.event_queue.publish_many("work", [2, 2]),
    "depth": lambda c: c.event_queue.depth("work"),
    "purge": lambda c: c.event_queue.purge("work"),
    "stop": lambda c: c.stop(),
    "start": lambda c: c.start(),
    "dead letters": lambda c: c.event_queue.dead_letters("work").discard(),
    "cache get": lambda c: c.cache.get("held"),
    "cache wrap": lambda c: c.cache.wrap("held", int),
    "cache miss": lambda c: c.cache.wrap("missing", int),
    "cache set": lambda c: c.cache.set("held", 2),
    "cache delete": lambda c: c.cache.delete("held"),
    "cache incr": lambda c: c.cache.incr("counter"),
    "create_cache": lambda c: c.caches.create_cache("other"),
    "first use": lambda c: c.caches.get_cache("unused").get("key"),
    "broadcast": lambda c: c.pubsub.publish("news", 2, skip_self=False),
    "sync message": lambda c: c.sync_messages.publish("news", 2, skip_self=False),
    "subscribe to broadcasts": lambda c: c.pubsub.subscribe("news", Hearer().handle),
    "unsubscribe from broadcasts": lambda c: c.pubsub.unsubscribe("news", print),
    "subscribe to sync messages": lambda c: c.sync_messages.subscribe("news", Hearer().handle),
    "acquire": lambda c: c.locks.acquire("a"),
    "run_exclusive": lambda c: c.locks.run_exclusive("a", os.getpid),
    "leader": lambda c: anext(c.locks.leader("a")),
    "semaphore": lambda c: c.locks.semaphore("a", 2).acquire(),
    "rate limit": lambda c: c.locks.rate_limit("a", 2, 60).acquire(),
    "inspect": lambda c: c.locks.inspect("a"),
}
LEASES: dict[str, Callable[[Lease], Awaitable[object]]] = {
    "release": lambda lease: lease.release(),
    "extend": lambda lease: lease.extend(60),
    "enter": lambda lease: lease.__aenter__(),
}


@pytest_asyncio.fixture
async def cluster() -> AsyncGenerator[Cluster]:
    cluster = Cluster("shop", settings=Settings())
    await cluster.caches.create_cache("unused")
    async with cluster:
        await cluster.cache.set("held", 1)
        yield cluster


def no_store(url: str) -> CacheStore:
    raise AssertionError(url)


def refused(call: Call, cluster: Cluster) -> str:
    """Make the call on an event loop of its own, and return what it is told."""

    async def elsewhere() -> str:
        try:
            await call(cluster)
        except LifecycleError as exc:
            return str(exc)
        return "not refused"

    return asyncio.run(elsewhere())


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_on_the_loop_of_another_thread_is_refused_and_nothing_done(
    cluster: Cluster, name: str
) -> None:
    recorder, heard = Recorder(), Hearer()
    cluster.event_queue.subscribe("work", recorder.handle)
    await cluster.pubsub.subscribe("news", heard.handle)
    await cluster.sync_messages.subscribe("news", heard.handle)

    assert "another event loop" in await asyncio.to_thread(refused, CALLS[name], cluster)

    await cluster.event_queue.publish("work", 1)
    await cluster.pubsub.publish("news", 1, skip_self=False)
    await cluster.sync_messages.publish("news", 1, skip_self=False)
    await recorder.finished(1)
    assert await heard.hears(2) == [1, 1]
    assert recorder.payloads == [1]
    assert await cluster.cache.mget("held", "missing") == [1, None]
    assert await cluster.cache.count("counter") == 0
    assert "other" not in cluster.caches.stats()


async def test_a_thread_without_a_loop_registers_no_store(cluster: Cluster) -> None:
    with pytest.raises(LifecycleError, match="another event loop"):
        await asyncio.to_thread(cluster.caches.register_store, "files", no_store)


@pytest.mark.parametrize("name", LEASES)
async def test_a_lease_is_read_elsewhere_and_used_at_home(cluster: Cluster, name: str) -> None:
    lease = await cluster.locks.acquire("a")
    use = LEASES[name]
    told = await asyncio.to_thread(refused, lambda _: use(lease), cluster)
    assert "another event loop" in told
    assert await asyncio.to_thread(lambda: (lease.state, lease.fence)) == (
        LeaseState.HELD,
        lease.fence,
    )
    await lease.release()


async def test_a_subscription_is_closed_at_home(cluster: Cluster) -> None:
    heard = Hearer()
    subscription = await cluster.pubsub.subscribe("news", heard.handle)
    told = await asyncio.to_thread(refused, lambda _: subscription.close(), cluster)
    assert "another event loop" in told
    await cluster.pubsub.publish("news", 1, skip_self=False)
    assert await heard.hears(1) == [1]


async def test_a_thread_without_a_loop_subscribes_nothing(cluster: Cluster) -> None:
    with pytest.raises(LifecycleError, match="another event loop"):
        await asyncio.to_thread(cluster.event_queue.subscribe, "work", Recorder().handle)

    recorder = Recorder()
    cluster.event_queue.subscribe("work", recorder.handle)
    with pytest.raises(LifecycleError, match="another event loop"):
        await asyncio.to_thread(cluster.event_queue.unsubscribe, "work")
    await cluster.event_queue.publish("work", 1)
    await recorder.finished(1)


async def said_by_a_fork(speak: Callable[[], str]) -> str:
    """Fork, and return what the other process says."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:  # whatever happens, it must not go on as a second run of these tests
        try:
            os.write(writes, speak().encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        told = await asyncio.to_thread(pipe.read)
    await asyncio.to_thread(os.waitpid, child, 0)
    return told.decode()


@pytest.mark.parametrize(
    "name", ["publish", "broadcast", "acquire", "cache get", "cache wrap", "cache set"]
)
async def test_a_forked_process_is_refused(cluster: Cluster, name: str) -> None:
    await cluster.event_queue.publish("work", 1)
    told = await said_by_a_fork(lambda: refused(CALLS[name], cluster))
    assert "another event loop" in told
    await cluster.event_queue.publish("work", 2)


async def test_a_forked_process_has_no_lease_of_its_parent(cluster: Cluster) -> None:
    lease = await cluster.locks.acquire("a")

    def speak() -> str:
        with pytest.raises(LockLost) as refused:
            lease.check()
        return f"{lease.state} {lease.valid_for()} {refused.value}"

    told = await said_by_a_fork(speak)
    assert told.startswith("LeaseState.LOST 0.0 lock 'a': lost: a forked process has none")
    assert lease.state is LeaseState.HELD
