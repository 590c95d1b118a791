from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import pytest_asyncio

from cluster_kit import Cluster, Settings
from cluster_kit.errors import ConnectError, LockLost, LockUnavailable
from cluster_kit.locks import Lease, LeaseState
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import MEMCACHED, REDIS, PlainServer
from cluster_kit.testing.waiting import eventually
from integration.locks_bench import own_server, running
from integration.test_locks_contract import say

KEY = "schema"


@pytest.fixture(params=[REDIS, MEMCACHED], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[PlainServer]:
    """A server of this test's own."""
    with own_server(request.param, to="stop") as server:
        yield server


@pytest_asyncio.fixture
async def cluster(server: PlainServer) -> AsyncIterator[Cluster]:
    async with running(server.url) as cluster:
        yield cluster


@pytest.mark.asyncio
async def test_locks_go_on_after_a_restart_of_the_server(
    server: PlainServer, cluster: Cluster
) -> None:
    async with cluster.locks.hold(KEY) as lease:
        before = lease.fence

    await asyncio.to_thread(server.stop, kill=True)
    with pytest.raises(LockUnavailable):
        await cluster.locks.acquire(KEY, timeout=0)
    await asyncio.to_thread(server.start)

    async with cluster.locks.hold(KEY, timeout=20) as lease:
        assert lease.fence > before
    await eventually(lambda: cluster.health()["status"] == "ok")


@pytest.mark.asyncio
async def test_a_wait_goes_on_over_a_restart_of_the_server(
    server: PlainServer, cluster: Cluster
) -> None:
    await asyncio.to_thread(server.stop)

    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(cluster.locks.acquire(KEY, timeout=30))
        await asyncio.to_thread(server.start)

    await waiter.result().release()


@pytest.mark.asyncio
async def test_a_lease_of_a_server_that_comes_back_empty_is_lost(
    server: PlainServer, cluster: Cluster
) -> None:
    lease = await cluster.locks.acquire(KEY, ttl=6)

    await asyncio.to_thread(server.stop, kill=True)
    await asyncio.to_thread(server.start, empty=True)

    async with asyncio.timeout(20):
        await lease.lost.wait()
    assert await cluster.locks.inspect(KEY) is None


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_told_at_start(server: PlainServer) -> None:
    await asyncio.to_thread(server.stop)

    named = rf"^locks\.url \(CLUSTER_KIT_LOCKS__URL\): cannot connect to {server.url}"
    with pytest.raises(ConnectError, match=named) as found:
        await running(server.url).start()

    assert found.value.retryable
    await asyncio.to_thread(server.start)


@pytest.mark.asyncio
async def test_late_answers_let_nobody_in_twice(server: PlainServer) -> None:
    async with (
        FaultProxy(server.url) as proxy,
        running(proxy.url) as slow,
        running(server.url) as other,
    ):
        proxy.delay(0.1)
        async with slow.locks.hold(KEY, ttl=5) as lease:
            assert lease.valid_for() < 5 - 0.1
            assert await other.locks.try_acquire(KEY) is None
        proxy.delay(0)
        await eventually(lambda: free(other))


async def free(cluster: Cluster) -> bool:
    return await cluster.locks.inspect(KEY) is None


@pytest.fixture
def own_redis() -> Iterator[PlainServer]:
    with own_server(REDIS, to="stop") as server:
        yield server


@pytest.mark.asyncio
async def test_redis_keeps_a_lock_over_a_restart_with_its_data(own_redis: PlainServer) -> None:
    async with running(own_redis.url) as cluster:
        lease = await cluster.locks.acquire(KEY, ttl=20)
        await asyncio.to_thread(own_redis.stop, kill=True)
        await asyncio.to_thread(own_redis.start)

        await lease.extend(30)
        assert lease.state is LeaseState.HELD
        assert await cluster.locks.inspect(KEY) is not None
        await lease.release()


@pytest.mark.asyncio
async def test_a_lock_on_redis_that_somebody_made_without_an_end_is_asked_for_now_and_then(
    own_redis: PlainServer,
) -> None:
    async with running(own_redis.url) as cluster:
        say(own_redis.url, f"SET ck:lock:{{shop.{KEY}}} x".encode())
        say(own_redis.url, b"CONFIG RESETSTAT")

        assert await cluster.locks.try_acquire(KEY, timeout=2) is None

        told = say(own_redis.url, b"INFO commandstats")
        assert int(told.partition(b"cmdstat_evalsha:calls=")[2].partition(b",")[0]) < 10


@pytest.mark.asyncio
async def test_redis_that_forgot_the_scripts_is_taught_again(own_redis: PlainServer) -> None:
    async with running(own_redis.url) as cluster:
        async with cluster.locks.hold(KEY) as lease:
            say(own_redis.url, b"SCRIPT FLUSH")
            await lease.extend(30)
            say(own_redis.url, b"SCRIPT FLUSH")
        say(own_redis.url, b"SCRIPT FLUSH")
        async with cluster.locks.hold(KEY, timeout=0):
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize("rights", [b"~* -script", b"~other:*"])
@pytest.mark.parametrize("setting", ["CLUSTER_KIT_LOCKS__URL", "CLUSTER_KIT_REDIS_URL"])
async def test_a_user_without_the_rights_waits_for_no_lock(
    own_redis: PlainServer, rights: bytes, setting: str
) -> None:
    say(own_redis.url, b"ACL SETUSER ann on >pw &* +@all " + rights)
    url = own_redis.url.replace("//", "//ann:pw@")
    settings = Settings(event_queue={"url": "memory://"}, redis_url=url)
    if setting == "CLUSTER_KIT_LOCKS__URL":
        settings = Settings(event_queue={"url": "memory://"}, locks={"url": url})

    with pytest.raises((LockUnavailable, ConnectError), match=setting) as found:
        async with asyncio.timeout(10), Cluster("shop", settings=settings) as cluster:
            await cluster.locks.acquire(KEY, timeout=60)

    assert not found.value.retryable
    assert "NOPERM" in str(found.value) or "no permissions" in str(found.value)


@pytest.mark.asyncio
async def test_a_script_that_redis_forgot_leaves_no_doubt_about_a_grant(
    own_redis: PlainServer,
) -> None:
    async with running(own_redis.url) as cluster:
        say(own_redis.url, b"SCRIPT FLUSH")
        lease = await cluster.locks.acquire(KEY)
        say(own_redis.url, b"CONFIG RESETSTAT")
        await lease.release()
        await asyncio.sleep(1)  # one in doubt is looked for meanwhile

        told = say(own_redis.url, b"INFO commandstats")
        runs = re.findall(rb"cmdstat_eval(?:sha)?:calls=(\d+)", told)
        assert sum(map(int, runs)) == 2  # of which the first was refused


@pytest.mark.asyncio
async def test_redis_that_evicts_is_warned_about(
    own_redis: PlainServer, caplog: pytest.LogCaptureFixture
) -> None:
    say(own_redis.url, b"CONFIG SET maxmemory 100mb")
    async with running(own_redis.url):
        assert not [text for text in caplog.messages if "evicts" in text]
    say(own_redis.url, b"CONFIG SET maxmemory-policy allkeys-lru")

    async with running(own_redis.url):
        [warning] = [text for text in caplog.messages if "evicts" in text]

    assert "allkeys-lru" in warning
    assert "noeviction" in warning


@pytest.mark.asyncio
async def test_a_wrong_password_is_told_at_start_and_not_shown(own_redis: PlainServer) -> None:
    say(own_redis.url, b"CONFIG SET requirepass s3cret")

    with pytest.raises(ConnectError) as found:
        await running(own_redis.url.replace("//", "//:wr0ng@")).start()

    assert not found.value.retryable
    assert "wr0ng" not in str(found.value)
    right = running(own_redis.url.replace("//", "//:s3cret@"))
    async with right, right.locks.hold(KEY):
        pass


@pytest.mark.asyncio
async def test_locks_do_not_heed_a_switch_of_aiocache(own_redis: PlainServer) -> None:
    program = (
        "import asyncio, sys\n"
        "from cluster_kit import Cluster\n"
        "async def main():\n"
        "    async with Cluster('shop') as one, Cluster('shop') as two:\n"
        "        async with one.locks.hold('a'):\n"
        "            sys.exit(await two.locks.try_acquire('a') is not None)\n"
        "asyncio.run(main())\n"
    )
    environment = {
        **os.environ,
        "AIOCACHE_DISABLE": "1",
        "CLUSTER_KIT_LOCKS__URL": own_redis.url,
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stderr=asyncio.subprocess.DEVNULL
    )

    assert await running.wait() == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["redis", "memcached"])
async def test_a_thousand_releases_racing_renewals_leave_no_zombie(
    kind: str, request: pytest.FixtureRequest
) -> None:
    async with (
        FaultProxy(request.getfixturevalue(kind)) as proxy,
        running(proxy.url) as cluster,
    ):
        for turn in range(1000):
            # Of a zombie the ttl would not be over yet.
            lease = await cluster.locks.acquire("zombie", ttl=30, timeout=10)
            async with asyncio.TaskGroup() as group:
                proxy.delay(0.002)  # the renewal is overtaken by the release
                group.create_task(_extend(lease))
                for _ in range(turn % 10):
                    await asyncio.sleep(0)
                proxy.delay(0)
                group.create_task(lease.release())
        assert await cluster.locks.inspect("zombie") is None


@pytest.fixture
def still() -> Iterator[PlainServer]:
    """A memcached that can be made to stand still."""
    with own_server(MEMCACHED, to="stop", local=True) as server:
        yield server


@pytest.mark.asyncio
async def test_a_memcached_whose_clock_is_late_lets_nobody_in_twice(still: PlainServer) -> None:
    pid = int(say(still.url, b"stats").split(b"STAT pid ")[1].split()[0])
    async with running(still.url) as first, running(still.url) as second:
        # The clock is set by the thread that lets connections in: they must be there before.
        kept = await asyncio.gather(*(first.locks.acquire(f"k{n}", ttl=30) for n in range(16)))
        for turn in range(3):  # it is late for a millisecond, or less
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(3)
                tries = [
                    asyncio.create_task(_until_its_end(first, f"{turn}.{n}")) for n in range(8)
                ]
                await asyncio.sleep(0.05)
            finally:
                os.kill(pid, signal.SIGCONT)
            for lease in await asyncio.gather(*tries):
                rival = await second.locks.acquire(lease.key, timeout=20)
                assert lease.state is LeaseState.LOST
                await rival.release()
        for lease in kept:
            lease.check()


async def _until_its_end(cluster: Cluster, key: str) -> Lease:
    return await cluster.locks.acquire(key, ttl=5, renew=False, timeout=20)


async def _extend(lease: Lease) -> None:
    with suppress(LockLost):  # the release may have been first
        await lease.extend(30)


@pytest.mark.asyncio
async def test_on_a_full_redis_a_lock_that_is_held_is_held(own_redis: PlainServer) -> None:
    async with running(own_redis.url) as one, running(own_redis.url) as two:
        async with one.locks.hold(KEY) as lease:
            say(own_redis.url, b"CONFIG SET maxmemory 1")
            assert await two.locks.try_acquire(KEY) is None
            await lease.extend(20)
        with pytest.raises(LockUnavailable, match="maxmemory"):
            await two.locks.try_acquire(KEY)
        say(own_redis.url, b"CONFIG SET maxmemory 0")
        async with two.locks.hold(KEY, timeout=10):
            pass
