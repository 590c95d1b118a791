"""Caches on real servers: what they send, and what becomes of loads whose process is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster_kit import Cache, Cluster
from cluster_kit.cache.envelope import Kind, Record, pack
from cluster_kit.cache.guard import FAILURES
from cluster_kit.cache.names import Names
from cluster_kit.errors import CacheUnavailable
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import REDIS, RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_aiocache.memcached_client import MemcachedClient, key_of
from cluster_kit_aiocache.memcached_connections import Connections
from integration.load.cache import run
from integration.locks_bench import own_server
from integration.test_pubsub_topology import user

LOADER = """
import asyncio, os, sys, time
from pathlib import Path
from cluster_kit import Cluster

runs = Path(sys.argv[1])

async def load():
    with runs.open("a") as file:
        file.write(f"{os.getpid()} {time.time()}\\n")
    await asyncio.sleep(float(sys.argv[2]))
    return os.getpid()

async def main():
    async with Cluster() as cluster:
        cache = await cluster.caches.create_cache("rows", ttl=60)
        values = await asyncio.gather(*(cache.wrap("cold", load) for _ in range(200)))
        print(len(values), *set(values))

asyncio.run(main())
"""


@asynccontextmanager
async def monitored(url: str) -> AsyncIterator[list[str]]:
    """What the server is told by anybody meanwhile."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    lines: list[str] = []

    async def read() -> None:
        while line := await reader.readline():
            lines.append(line.decode())

    task = asyncio.get_running_loop().create_task(read())
    yield lines
    marker = uuid.uuid4().hex
    writer.write(f"ECHO {marker}\r\n".encode())
    other, out = await asyncio.open_connection(parts.hostname, parts.port)
    out.write(f"ECHO {marker}\r\n".encode())
    await other.readline()
    await eventually(lambda: any(marker in line for line in lines))
    task.cancel()
    for stream in (writer, out):
        stream.close()


async def redis(url: str, *words: str) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(" ".join(words).encode() + b"\r\n")
    answer = await reader.readline()
    writer.close()
    return answer


@asynccontextmanager
async def on(url: str, **options: object) -> AsyncIterator[tuple[Cluster, Cache]]:
    factory = ClusterFactory()
    [cluster] = await factory(cache={"url": url, "timeout": 10})  # the machine may be busy
    yield cluster, await cluster.caches.create_cache("rows", **options)  # type: ignore[arg-type]
    await factory.close()


@pytest.mark.asyncio
async def test_a_reset_touches_its_own_cache_alone_and_looks_for_nothing(
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("redis")
    foreign = f"foreign-{uuid.uuid4().hex}"
    await redis(url, "SET", foreign, "theirs")
    async with on(url) as (cluster, cache):
        other = await cluster.caches.create_cache("rows2")
        await other.set("key", 1)
        await cache.mset({f"k{number}": number for number in range(2000)}, tags=["all"])
        async with monitored(url) as lines:
            await cache.reset()
            await cache.invalidate_tags("all")
            await cache.delete("k1")
        assert await cache.mget("k0", "k1999") == [None, None]
        assert await other.get("key") == 1
    assert await redis(url, "GET", foreign) == b"$6\r\n"
    told = [line.split('"')[1].upper() for line in lines if '"' in line]
    assert told
    assert not {"KEYS", "SCAN", "FLUSHDB", "FLUSHALL", "UNLINK"} & set(told)
    assert len(told) < 40  # however many keys there are


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "memcached"])
async def test_a_call_that_was_given_up_leaves_no_answer_behind(
    backend: str, request: pytest.FixtureRequest
) -> None:
    async with (
        FaultProxy(request.getfixturevalue(backend)) as proxy,
        on(proxy.url) as (_, cache),
    ):
        await cache.mset({f"k{number}": number for number in range(50)}, 60)
        loop = asyncio.get_running_loop()
        for _ in range(20):
            given_up = [loop.create_task(cache.get(f"k{number}")) for number in range(10)]
            await asyncio.sleep(0)
            for task in given_up[::2]:
                task.cancel()
            await asyncio.wait(given_up)
            answers = [task.result() for task in given_up[1::2]]
            assert answers == [1, 3, 5, 7, 9]
        assert await cache.mget(*(f"k{number}" for number in range(50))) == list(range(50))


@pytest.mark.asyncio
async def test_a_counter_counts_once_although_the_answer_is_lost(
    request: pytest.FixtureRequest,
) -> None:
    url, factory = request.getfixturevalue("redis"), ClusterFactory()
    async with FaultProxy(url) as proxy:
        [far], [near] = [await factory(cache={"url": u, "timeout": 10}) for u in (proxy.url, url)]
        assert await far.cache.incr("hits") == 1
        proxy.freeze("to_client")
        counting = asyncio.get_running_loop().create_task(far.cache.incr("hits", 5))
        await eventually(lambda: near.cache.count("hits"), lambda count: count == 6)
        proxy.cut()
        proxy.resume()

        assert await counting == 6
        assert await near.cache.count("hits") == 6
        await factory.close()


@pytest.mark.asyncio
async def test_a_counter_that_may_be_cleared_unseen_is_no_zero(
    request: pytest.FixtureRequest,
) -> None:
    url, factory = request.getfixturevalue("redis"), ClusterFactory()
    async with FaultProxy(url) as proxy:
        [far], [near] = [await factory(cache={"url": u, "timeout": 10}) for u in (proxy.url, url)]
        assert await far.cache.incr("hits", 5) == 5
        proxy.close_after(len(b"*1\r\n$8\r\nan epoch\r\n*"), "to_client")

        with pytest.raises(CacheUnavailable):
            await far.cache.clear_count("hits")
        assert await near.cache.count("hits") == 0
        await factory.close()


@pytest.mark.asyncio
async def test_calls_of_all_kinds_at_once_have_connections(
    request: pytest.FixtureRequest,
) -> None:
    url, factory = request.getfixturevalue("redis"), ClusterFactory()
    cluster, other = await factory(2, cache={"url": url}, locks={"url": url})
    async with other.locks.hold("busy"):
        waiter = asyncio.ensure_future(cluster.locks.acquire("busy", timeout=30))
        word = ("PUBLISH", f"ck:unlocked:{factory.name}.busy", "hint")
        await eventually(lambda: redis(url, *word), lambda heard: heard == b":1\r\n")
        async with asyncio.TaskGroup() as group:  # which ends with the first that fails
            for number in range(200):
                group.create_task(cluster.locks.acquire(f"k{number}"))
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(cluster.cache.set(f"k{number}", number))
    await (await waiter).release()
    assert cluster.locks.stats().refused == 0
    await factory.close()


@pytest.mark.asyncio
async def test_more_callers_than_connections_wait_their_turn(
    request: pytest.FixtureRequest,
) -> None:
    for backend in ("redis", "memcached"):
        async with on(request.getfixturevalue(backend)) as (_, cache):
            await cache.set("key", 1)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(cache.get("key")) for _ in range(500)]
            assert {task.result() for task in tasks} == {1}
            assert cache.stats().unavailable == 0


@asynccontextmanager
async def through(proxy: FaultProxy) -> AsyncIterator[Cache]:
    """A cache with a key in it, and the usual time for an answer."""
    factory = ClusterFactory()
    [cluster] = await factory(cache={"url": proxy.url, "timeout": 0.5})
    cache = await cluster.caches.create_cache("rows")
    await cache.set("key", 1)
    yield cache
    await factory.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "memcached"])
async def test_a_server_is_not_away_for_this_process_stood_still(
    backend: str, request: pytest.FixtureRequest
) -> None:
    async with FaultProxy(request.getfixturevalue(backend)) as proxy, through(proxy) as cache:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.get("key")) for _ in range(6)]
            for _ in range(4):
                await asyncio.sleep(0)
            time.sleep(0.7)  # noqa: ASYNC251 - other code that blocks the loop
        assert [task.result() for task in tasks] == [1] * 6
        assert cache.stats().unavailable == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "memcached"])
async def test_a_server_is_not_away_for_there_is_a_line(
    backend: str, request: pytest.FixtureRequest
) -> None:
    async with FaultProxy(request.getfixturevalue(backend)) as proxy, through(proxy) as cache:
        await asyncio.gather(*(cache.get("key") for _ in range(100)))  # all connections are open
        proxy.delay(0.03)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.get("key")) for _ in range(800)]
        assert {task.result() for task in tasks} == {1}
        assert cache.stats().unavailable == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "memcached"])
async def test_a_line_ends_when_nobody_is_answered(
    backend: str, request: pytest.FixtureRequest
) -> None:
    async with FaultProxy(request.getfixturevalue(backend)) as proxy, through(proxy) as cache:
        proxy.freeze()
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:  # ten times as long as one
            tasks = [group.create_task(cache.get("key")) for _ in range(800)]
        assert {task.result() for task in tasks} == {None}
        proxy.resume()
        assert await cache.get("key") == 1  # all of them were one failure


@pytest.mark.asyncio
async def test_a_promise_that_is_prolonged_as_it_is_filled_is_filled(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = MemcachedClient.get
    async with on(request.getfixturevalue("memcached")) as (_, cache):
        engine = cache._engine
        assert engine is not None
        remote = engine.shelf.remote
        assert remote is not None
        [found] = await remote.read(["key"])
        promised = remote.promised(found, time.time() + 60)
        assert await remote.promise("key", found, promised)
        promise, prolonged = promised.head, 0

        async def overtaken(client: MemcachedClient, key: bytes) -> object:
            """Prolong between what a swap looks at and what it stores."""
            nonlocal prolonged
            item = await get(client, key)
            if not prolonged:
                prolonged += 1
                await remote.prolong("key", promise, found, time.time() + 120)
            return item

        monkeypatch.setattr(MemcachedClient, "get", overtaken)
        record = remote.value(found, 60, 0.0, ())
        assert await remote.fill("key", promise, b'"loaded"', record)
        assert prolonged
        await remote.prolong("key", promise, found, time.time() + 120)  # changes nothing any more
        assert await cache.get("key") == "loaded"


@pytest.mark.asyncio
async def test_a_counter_that_is_at_its_end_stays_there(request: pytest.FixtureRequest) -> None:
    url, most = request.getfixturevalue("redis"), 2**63 - 1
    async with on(url) as (cluster, cache):
        names = Names(cluster.name, "rows")
        await redis(url, "SET", names.counted, "theepoch")
        await redis(url, "SET", names.counter("n", b"theepoch"), str(most - 1))
        assert await cache.incr("n") == most
        for _ in range(2):
            with pytest.raises(CacheUnavailable, match="overflow") as told:
                await cache.incr("n")
            assert told.value.refused
        assert await cache.count("n") == most


@pytest.mark.asyncio
async def test_a_server_that_is_full_is_read_and_told_what_is_invalidated(
    request: pytest.FixtureRequest,
) -> None:
    async def loaded() -> str:
        return "loaded"

    url = request.getfixturevalue("redis")
    async with on(url) as (_, cache):
        await cache.mset({"a": 1, "b": 2, "c": 3}, 60)
        await cache.mset({"d": 4, "e": 5}, 60, tags=["t"])
        await redis(url, "CONFIG", "SET", "maxmemory", "1")
        try:
            for _ in range(2 * FAILURES):
                with pytest.raises(CacheUnavailable, match="maxmemory") as told:
                    await cache.set("new", 1)
                assert told.value.refused
            assert await cache.mget("a", "b", "e") == [1, 2, 5]
            assert "refuses" in cache.troubles()[0]
            for number in range(5):  # of which nothing is left to keep or to take back
                assert await cache.wrap(f"n{number}", loaded) == "loaded"
            assert cache.stats().loading == 0
            assert not [task for task in asyncio.all_tasks() if "promise:" in task.get_name()]
            assert not [task for task in asyncio.all_tasks() if "withdraw:" in task.get_name()]
            assert await cache.delete("a") is True
            await cache.invalidate_tags("t")
            assert await cache.mget("a", "b", "d") == [None, 2, None]
            await cache.reset()
            assert await cache.mget("b", "c") == [None, None]
        finally:
            await redis(url, "CONFIG", "SET", "maxmemory", "0")
        await cache.set("new", 1)
        assert cache.troubles() == []
        assert await cache.mget("a", "b", "c", "d", "new") == [None] * 4 + [1]


@pytest.mark.broker
@pytest.mark.broker_control
@pytest.mark.timeout(180)  # rabbitmqctl takes its time on a busy machine
@pytest.mark.asyncio
async def test_the_restricted_user_of_the_documents_tells_and_hears_invalidations(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    factory = ClusterFactory()
    app, own = factory.name, {"url": "memory://", "degraded_ttl": 60}
    [owner] = await factory(pubsub={"url": rabbitmq}, cache=own)  # type: ignore[arg-type]
    there = await owner.caches.create_cache("rows", backplane=True)
    await there.delete("row")  # the owner's first publish makes what the other one uses
    async with user(
        rabbitmq_server,
        rabbitmq,
        configure=rf"^ck\.v1\.(sub|keep)\.{app}\.",
        write=rf"^({app}\.(pubsub|sync|cache)\.|ck\.v1\.)",
        read=rf"^({app}\.|ck\.v1\.(directory\.{app}|(sub|keep|stream)\.{app}\.))",
    ) as url:
        [restricted] = await factory(pubsub={"url": url}, cache=own)  # type: ignore[arg-type]
        here = await restricted.caches.create_cache("rows", backplane=True)
        for one, other in ((here, there), (there, here)):
            await other.set("row", 1)
            await one.delete("row")
            await eventually(partial(other.get, "row"), lambda value: value is None)
        await factory.close()


@pytest.mark.asyncio
@pytest.mark.slow
@pytest.mark.parametrize("server", ["redis", "memcached"])
@pytest.mark.parametrize("killed", [False, True], ids=["all live", "the loading one is killed"])
async def test_four_processes_of_200_callers_load_once(
    killed: bool, server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    runs, promise_ttl = tmp_path / "runs", 2
    environment = {
        **os.environ,
        "CLUSTER_KIT_APP": f"load-{uuid.uuid4().hex[:8]}",
        "CLUSTER_KIT_CACHE__URL": request.getfixturevalue(server),
        "CLUSTER_KIT_CACHE__PROMISE_TTL": str(promise_ttl),
        "CLUSTER_KIT_CACHE__TIMEOUT": "5",
        "CLUSTER_KIT_EVENT_QUEUE__URL": "memory://",
    }
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LOADER, str(runs), "2.0"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]

    def loads() -> list[list[str]]:
        """Of whom, and when they began."""
        return [line.split() for line in runs.read_text().splitlines()] if runs.exists() else []

    if killed:
        [[first, _]] = await eventually(loads, timeout=60)
        os.kill(int(first), signal.SIGKILL)
    answers = [
        (process, (await process.communicate())[0].decode().split()) for process in processes
    ]
    alive = [answer for process, answer in answers if process.returncode == 0]
    assert len(alive) == (3 if killed else 4)
    assert len(loads()) == (2 if killed else 1)
    assert alive == [["200", loads()[-1][0]]] * len(alive)
    if killed:  # and not before what the dead one had promised was over
        begun = [float(when) for _, when in loads()]
        assert begun[1] - begun[0] > promise_ttl / 2


@pytest.mark.asyncio
@pytest.mark.parametrize("delay", [0.02, 0.08])
async def test_who_gives_up_on_a_slow_link_keeps_nobody(
    delay: float, request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> None:
    url = request.getfixturevalue("redis")
    async with FaultProxy(url) as proxy:
        [far] = await cluster_factory(1, cache={"url": proxy.url, "promise_ttl": 60})
        [near] = await cluster_factory(1, cache={"url": url, "promise_ttl": 60})
        caches = [await c.caches.create_cache("rows", ttl=60) for c in (far, near)]

        async def load() -> int:
            return 1

        loop = asyncio.get_running_loop()
        for number in range(5):  # it looks, and promises, and takes twice the delay for each
            proxy.resume()
            await caches[0].incr("connected")
            proxy.delay(delay)
            leaving = loop.create_task(caches[0].wrap(f"k{number}", load))
            await asyncio.sleep(delay * (number + 0.5))
            leaving.cancel()
            await asyncio.wait({leaving})
            async with asyncio.timeout(20):
                assert await caches[1].wrap(f"k{number}", load) == 1


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_nobody_reads_what_was_invalidated_for_longer_than_is_said(
    rabbitmq: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = request.getfixturevalue("redis")

    outcome = asyncio.run(run(rabbitmq, store, processes=3, seconds=20.0, folder=tmp_path))

    assert outcome.good, str(outcome)
    assert outcome.counts["delete"] > 20
    assert outcome.stats["refused"] > 0
    assert outcome.stats["gaps"] > 0


@pytest.mark.asyncio
async def test_waiting_does_not_give_a_user_the_right_that_lacks(
    request: pytest.FixtureRequest,
) -> None:
    url, name = request.getfixturevalue("redis"), f"user-{uuid.uuid4().hex}"
    rights = ("~*", "resetchannels", "+@all", "-evalsha", "-eval")
    await redis(url, "ACL", "SETUSER", name, "on", ">pw", *rights)
    try:
        async with on(url.replace("://", f"://{name}:pw@")) as (_, cache):
            with pytest.raises(CacheUnavailable, match="no permissions") as caught:
                await cache.delete("key")
            assert caught.value.refused
            assert not caught.value.retryable
            await redis(url, "ACL", "SETUSER", name, "+@all")  # so that the stop has told it
    finally:
        await redis(url, "ACL", "DELUSER", name)


@pytest.mark.asyncio
async def test_waiting_does_not_give_a_password() -> None:
    with own_server(REDIS, to="ask for a password") as server:
        async with on(server.url) as (_, cache):
            await cache.set("key", 1)
            await redis(server.url, "CONFIG SET requirepass s3cret\r\nCLIENT KILL TYPE normal")
            for _ in range(FAILURES + 2):
                with pytest.raises(CacheUnavailable, match="needs a password") as caught:
                    await cache.set("key", 2)
                assert not caught.value.retryable

            await redis(server.url, 'AUTH s3cret\r\nCONFIG SET requirepass ""')
            await eventually(lambda: cache.troubles() == [])
            await cache.set("key", 3)


@pytest.mark.asyncio
async def test_what_is_in_the_names_of_a_foreign_entry_is_not_run(
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("memcached")
    parts = urlsplit(url)
    connections = Connections(str(parts.hostname), parts.port or 11211)
    client = MemcachedClient(connections)
    async with on(url) as (cluster, cache):
        names = Names(cluster.name, "rows")
        await cache.mset({"one": 1, "two": 2})
        epoch = await client.get(key_of(names.epoch))
        assert epoch is not None
        tag = "x v\r\nms stolen 3 T0\r\nyes\r\nmg y"
        body = pack(foreign(epoch.value, tag))
        assert await client.add(key_of(names.entry("foreign")), body, 60)

        assert await cache.get("foreign") is None
        assert await cache.mget("one", "two", "none") == [1, 2, None]
        assert await client.get(b"stolen") is None
        assert cache.stats().corrupt == 1
    await connections.close()


def foreign(epoch: bytes, tag: str) -> Record:
    return Record(
        kind=Kind.VALUE,
        epoch=epoch,
        created=time.time(),
        ttl=60,
        grace=0,
        promised=0,
        tags={tag: b"version1"},
        payload=b"1",
        stamp=b"stamp-01",
    )
