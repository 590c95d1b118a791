"""Servers that lose locks, and answers that get lost: who held one is told, and nothing stays."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import LockLost, LockTimeout, LockUnavailable
from cluster_kit.locks import LeaseState
from cluster_kit.testing.contracts.locks.bench import Room
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import MEMCACHED, REDIS, PlainServer
from cluster_kit.testing.waiting import eventually
from integration.locks_bench import own_server, running
from integration.test_locks_contract import say

KEY = "schema"
FILL = b"x" * 60  # as long as what a lock is stored as

SMALL = replace(
    MEMCACHED,
    arguments=lambda port, folder: [*MEMCACHED.arguments(port, folder), "-m", "2"],
    command=("memcached", "-m", "2"),
)


@pytest.fixture
def redis_server() -> Iterator[PlainServer]:
    with own_server(REDIS, to="fill") as server:
        yield server


@pytest.fixture
def small_memcached() -> Iterator[PlainServer]:
    with own_server(SMALL, to="fill") as server:
        yield server


def fill(url: str, line: Callable[[int], bytes], gone: Callable[[], bool]) -> None:
    """Store more and more, until something is gone."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    batch = 2000
    with socket.create_connection((parts.hostname, parts.port), 20) as link:
        for turn in range(200):
            link.sendall(b"".join(line(turn * batch + n) for n in range(batch)))
            answers = 0
            while answers < batch:
                answers += link.recv(65536).count(b"\n")
            if gone():
                return
    raise AssertionError("nothing was evicted")


async def is_told(url: str, line: Callable[[int], bytes], gone: Callable[[], bool]) -> None:
    """Evict a lock that is held; its holder is told, and another has a greater fence."""
    async with running(url) as holder, running(url) as other:
        lease = await holder.locks.acquire(KEY, ttl=6)
        fence = lease.fence
        await asyncio.to_thread(fill, url, line, gone)

        async with other.locks.hold(KEY, timeout=20) as newer:
            assert newer.fence > fence
            async with asyncio.timeout(20):
                await lease.lost.wait()
            with pytest.raises(LockLost):
                lease.check()
            newer.check()
            await lease.release()
            newer.check()


@pytest.mark.asyncio
async def test_a_lock_that_redis_evicts_is_lost_and_that_was_told_at_start(
    redis_server: PlainServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = redis_server.url
    say(url, b"CONFIG SET maxmemory 6mb")
    say(url, b"CONFIG SET maxmemory-policy allkeys-lru")

    await is_told(
        url,
        lambda number: b"SET fill:%d %b\r\n" % (number, 8 * FILL),
        lambda: say(url, b"PTTL ck:lock:{shop.schema}") == b":-2\r\n",
    )

    warnings = [record for record in caplog.records if "evicts keys" in record.message]
    assert [record.levelname for record in warnings] == ["WARNING"] * 2


@pytest.mark.asyncio
async def test_a_lock_that_memcached_evicts_is_lost(small_memcached: PlainServer) -> None:
    url = small_memcached.url

    await is_told(
        url,
        lambda number: b"set fill:%d 0 0 %d\r\n%b\r\n" % (number, len(FILL), FILL),
        lambda: say(url, b"me ck.l.shop.schema").startswith(b"EN"),
    )


@pytest.mark.asyncio
async def test_a_full_redis_that_evicts_nothing_grants_nothing_and_says_so(
    redis_server: PlainServer,
) -> None:
    url = redis_server.url
    async with running(url) as cluster:
        lease = await cluster.locks.acquire(KEY, ttl=3)
        say(url, b"CONFIG SET maxmemory 1")

        with pytest.raises(LockUnavailable, match="maxmemory"):
            await cluster.locks.acquire("other", timeout=0)
        await asyncio.sleep(4)
        await lease.extend(5)  # it could be renewed, and can be
        await lease.release()
        assert say(url, b"EXISTS ck:lock:{shop.schema}") == b":0\r\n"


@pytest.mark.asyncio
async def test_scripts_that_are_forgotten_again_and_again_cost_nobody_a_lock(redis: str) -> None:
    room = Room()

    async def visit(cluster: Cluster) -> None:
        for _ in range(30):
            async with cluster.locks.hold(KEY, ttl=5) as lease:
                await room.visit(lease)

    async def forget() -> None:
        while True:
            await asyncio.to_thread(say, redis, b"SCRIPT FLUSH")

    async with running(redis) as one, running(redis) as two:
        forgetting = asyncio.ensure_future(forget())
        async with asyncio.TaskGroup() as group:
            for cluster in (one, two) * 3:
                group.create_task(visit(cluster))
        forgetting.cancel()
        with suppress(asyncio.CancelledError):
            await forgetting
        assert one.locks.stats().lost == two.locks.stats().lost == 0

    assert room.most == 1
    assert len(room.fences) == 180


@pytest.mark.asyncio
async def test_a_user_who_may_not_ask_about_memory_has_locks_and_a_warning(
    redis_server: PlainServer, caplog: pytest.LogCaptureFixture
) -> None:
    say(redis_server.url, b"ACL SETUSER ann on >pw ~* &* +@all -info")

    ann = running(redis_server.url.replace("//", "//ann:pw@"))
    async with ann, ann.locks.hold(KEY):
        pass

    assert [text for text in caplog.messages if "does not let this user ask" in text]


@pytest.mark.asyncio
async def test_a_quota_is_free_again_after_the_servers_clock_went_back(redis: str) -> None:
    async with running(redis) as cluster:
        limit = cluster.locks.rate_limit("mails", 1, 0.5)
        await limit.acquire()
        name = b"ck:rate:{shop.mails}"
        say(redis, b"DEL %b" % name)
        say(redis, b"ZADD %b 9000000000000000 counted-in-the-future" % name)

        assert not await limit.try_acquire()
        async with asyncio.timeout(20):
            await limit.acquire(timeout=15)


HOLDER = """
import asyncio, sys
from cluster_kit import Cluster

async def main():
    async with Cluster("shop") as cluster:
        semaphore = cluster.locks.semaphore("pool", 2)
        for _ in range(2):
            await semaphore.acquire(ttl=3)
        print("inside", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_permits_of_a_process_that_was_killed_are_free_after_their_ttl(redis: str) -> None:
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER),
        env={**os.environ, "CLUSTER_KIT_LOCKS__URL": redis},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"inside\n"
    async with running(redis) as cluster:
        semaphore = cluster.locks.semaphore("pool", 2)
        assert await semaphore.try_acquire() is None
        holder.kill()
        await holder.wait()

        leases = [await semaphore.acquire(timeout=20) for _ in range(2)]

        for lease in leases:
            await lease.release()


# --- answers that get lost ---


@dataclass(frozen=True)
class Look:
    """How to see on the server itself whether somebody has the lock."""

    question: bytes
    free: bytes


LOOKS = {
    "redis": Look(b"EXISTS ck:lock:{shop.schema}", b":0\r\n"),
    "memcached": Look(b"mg ck.l.shop.schema", b"EN\r\n"),
}


@dataclass(frozen=True)
class Place:
    """A server behind a proxy."""

    url: str
    proxy: FaultProxy
    look: Look

    def is_free(self) -> bool:
        return say(self.url, self.look.question) == self.look.free

    def mend(self) -> None:
        self.proxy.cut()
        self.proxy.resume()

    async def stays_free(self) -> None:
        """One second later nobody has it, although the ttl of an orphan would be far from over."""
        await eventually(self.is_free, timeout=5)
        await asyncio.sleep(1)
        assert self.is_free()


@pytest_asyncio.fixture(params=[*LOOKS])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    url: str = request.getfixturevalue(request.param)
    async with FaultProxy(url) as proxy:
        yield Place(url, proxy, LOOKS[request.param])


@pytest.mark.asyncio
@pytest.mark.parametrize("timeout", [0.3, 0], ids=["in its time", "in one try"])
async def test_a_grant_whose_answer_is_dropped_leaves_no_orphan(
    place: Place, timeout: float
) -> None:
    async with running(place.proxy.url) as cluster:
        place.proxy.freeze("to_client")
        with pytest.raises(LockUnavailable):
            await cluster.locks.acquire(KEY, timeout=timeout)
        assert not place.is_free()
        place.mend()

        await place.stays_free()


@pytest.mark.asyncio
async def test_a_cancelled_acquisition_leaves_no_orphan(place: Place) -> None:
    async with running(place.proxy.url) as cluster:
        place.proxy.freeze("to_client")
        waiter = asyncio.ensure_future(cluster.locks.acquire(KEY))
        await eventually(lambda: not place.is_free())
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        place.mend()

        await place.stays_free()


@pytest.mark.asyncio
async def test_acquisitions_cancelled_at_every_moment_leave_no_orphan(place: Place) -> None:
    async with running(place.proxy.url) as cluster:
        place.proxy.delay(0.002)
        for turn in range(60):
            waiter = asyncio.ensure_future(cluster.locks.acquire(KEY, timeout=10))
            await asyncio.sleep(turn * 0.0002)
            waiter.cancel()
            with suppress(asyncio.CancelledError):
                await (await waiter).release()

        await place.stays_free()


@pytest.mark.asyncio
async def test_an_acquisition_that_ran_out_of_time_leaves_no_orphan(place: Place) -> None:
    async with running(place.url) as holder, running(place.proxy.url) as cluster:
        lease = await holder.locks.acquire(KEY)
        with pytest.raises(LockTimeout):
            await cluster.locks.acquire(KEY, timeout=0.3)
        place.proxy.delay(0.05)
        with pytest.raises((LockTimeout, LockUnavailable)):
            await cluster.locks.acquire(KEY, timeout=0.03)
        await lease.release()

        await place.stays_free()


@pytest.mark.asyncio
async def test_an_extension_whose_answer_is_lost_is_not_believed(redis: str) -> None:
    async with FaultProxy(redis) as proxy, running(proxy.url) as holder, running(redis) as other:
        lease = await holder.locks.acquire(KEY, ttl=600, renew=False)
        proxy.freeze("to_client")
        with pytest.raises(LockUnavailable):
            await lease.extend(4)

        async with other.locks.hold(KEY, timeout=20):  # the server had heard of it
            assert lease.state is LeaseState.LOST
        proxy.cut()
        proxy.resume()
