from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from itertools import count
from typing import Any

import pytest

from cluster_kit import MISSING, Cache, Cluster, Settings
from cluster_kit.cache import upkeep
from cluster_kit.cache.upkeep import LOOK
from cluster_kit.clock import SystemClock
from cluster_kit.errors import CacheUnavailable, ConfigurationError, ConnectError, NotStartedError
from cluster_kit.ports import AdapterContext, AdapterSpec, CacheFactory, CacheStore
from cluster_kit.testing.contracts.cache.pausing import Pauses, PausingStore
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.cache_table import CacheTable
from cluster_kit_memory.pubsub import MemoryPubSub

DEGRADED_TTL = 0.3


async def instances(
    factory: ClusterFactory, n: int, store: CacheFactory = MemoryCacheStore, **cache: str
) -> list[tuple[Cluster, MemoryPubSub]]:
    """Each with the adapter that carries its invalidations."""
    made: list[MemoryPubSub] = []

    def make(url: str, context: AdapterContext) -> MemoryPubSub:
        made.append(MemoryPubSub(url, context))
        return made[-1]

    settings = {"degraded_ttl": DEGRADED_TTL, **cache}
    clusters = await factory(n, start=False, cache=settings)  # type: ignore[arg-type]
    for cluster in clusters:
        cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=make, cache=store))
        await cluster.start()
    return list(zip(clusters, made, strict=True))


@pytest.mark.asyncio
@pytest.mark.parametrize("store", ["own", "shared"])
async def test_who_is_off_the_broker_soon_doubts_what_it_holds(
    store: str, cluster_factory: ClusterFactory
) -> None:
    url: dict[str, Any] = {"url": "memory://"} if store == "own" else {}
    [(one, _), (two, link)] = await instances(cluster_factory, 2, **url)
    here, there = [
        await c.caches.create_cache("rows", backplane=True, l1_ttl=60) for c in (one, two)
    ]
    await there.set("row", "old")
    assert await there.get("row") == "old"

    link.disconnect()
    await here.set("row", "new")
    await eventually(lambda: there.troubles() != [])
    seen = await eventually(lambda: there.get("row"), lambda value: value != "old")

    assert seen == ("new" if store == "shared" else None)
    link.reconnect()
    await eventually(lambda: there.troubles() == [])
    assert there.stats().gaps >= 1
    assert await there.get("row") in {"new", None}


@pytest.mark.asyncio
async def test_what_could_not_be_told_is_told_when_the_link_is_back(
    cluster_factory: ClusterFactory,
) -> None:
    [(one, link), (two, _)] = await instances(cluster_factory, 2, url="memory://")
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    await there.mset({f"k{number}": number for number in range(1200)}, tags=["t"])
    link.disconnect()
    await asyncio.sleep(2 * LOOK)

    with pytest.raises(CacheUnavailable, match="other instances"):
        await here.mdel(*(f"k{number}" for number in range(600)))
    with pytest.raises(CacheUnavailable):
        await here.delete("k0")
    with pytest.raises(CacheUnavailable, match="other instances"):
        await here.set("k700", "new")
    assert here.stats().unsent == 601
    assert await there.get("k0") == 0

    link.reconnect()
    await eventually(lambda: here.stats().unsent == 0)
    await eventually(lambda: there.get("k599"), lambda value: value is None)
    assert await there.mget("k0", "k700", "k1199") == [None, None, 1199]


@pytest.mark.asyncio
async def test_a_store_that_could_not_be_told_is_mistrusted_by_all_who_hear_of_it(
    cluster_factory: ClusterFactory,
) -> None:
    stores: list[MemoryCacheStore] = []

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(MemoryCacheStore(url, context))
        return stores[-1]

    caches = []
    for _ in range(2):
        [cluster] = await cluster_factory(start=False)
        cluster.registry.register(dataclasses.replace(ADAPTER, cache=make))
        await cluster.start()
        caches.append(await cluster.caches.create_cache("rows", backplane=True))
    here, there = caches
    await here.set("row", "old", tags=["t"])
    assert await there.get("row") == "old"

    stores[0].disconnect()
    assert await here.delete("row") is True  # others know, and it was held here
    await eventually(lambda: there.get("row"), lambda value: value is None)

    stores[0].reconnect()
    await eventually(lambda: here.stats().unsent + there.stats().unsent == 0)
    assert await here.get("row", MISSING) is await there.get("row", MISSING) is MISSING


@pytest.mark.asyncio
async def test_a_private_cache_is_seen_by_nobody_else(cluster_factory: ClusterFactory) -> None:
    one, two = await cluster_factory(2, cache={"url": "memory://"})
    await one.cache.set("key", 1)
    await two.cache.set("key", 2)

    assert await one.cache.get("key") == 1
    assert await two.cache.get("key") == 2
    assert await one.cache.keys() == ["key"]


@pytest.mark.asyncio
async def test_stores_are_chosen_by_name(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory(start=False)
    made: list[str] = []

    def factory(url: str) -> CacheStore:
        made.append(url)
        context = AdapterContext(
            app="a", instance_id="b", tasks=cluster._background, emit=cluster.telemetry.emit
        )
        return MemoryCacheStore("memory://of-its-own", context)

    cluster.caches.register_store("files", factory)
    await cluster.start()
    cache = await cluster.caches.create_cache("rows", store="files")
    await cache.set("key", 1)

    assert await cache.get("key") == 1
    assert made == [cluster.settings.url_for("cache").reveal()]
    for name, text in (("redis", "REDIS_URL"), ("memcached", "MEMCACHED_URL"), ("filez", "files")):
        with pytest.raises(ConfigurationError, match=text):
            await cluster.caches.create_cache("more", store=name)
    with pytest.raises(ConfigurationError):
        cluster.caches.register_store("files", factory)
    for taken in ("redis", "memcached", "memory"):
        with pytest.raises(ConfigurationError, match="choose another name"):
            cluster.caches.register_store(taken, factory)
    with pytest.raises(ConfigurationError, match="l1_size"):
        await cluster.caches.create_cache("more", store="memory", l1_sise=5)  # type: ignore[call-arg]


async def make_none(url: str) -> None:
    del url


@pytest.mark.asyncio
@pytest.mark.parametrize("factory", [lambda _: None, lambda _: object(), make_none])
@pytest.mark.filterwarnings("ignore:coroutine 'make_none' was never awaited")
async def test_what_a_factory_makes_has_to_be_a_store(
    factory: Any, cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory()
    cluster.caches.register_store("files", factory)

    with pytest.raises(ConfigurationError, match=r"store 'files' returned .* it lacks connect, "):
        await cluster.caches.create_cache("rows", store="files")


@pytest.mark.asyncio
async def test_an_unreachable_store_names_the_setting_that_chose_it() -> None:
    away = {"redis": "redis://127.0.0.1:1", "memcached": "memcached://127.0.0.1:1"}
    settings = Settings(
        redis_url=away["redis"], memcached_url=away["memcached"], locks={"url": "memory://"}
    )
    async with Cluster("shop", settings=settings) as cluster:
        for name, url in away.items():
            named = rf"^{name}_url \(CLUSTER_KIT_{name.upper()}_URL\): cannot connect to {url}"
            with pytest.raises(ConnectError, match=named) as caught:
                await cluster.caches.create_cache(name, store=name)
            assert caught.value.retryable
        with pytest.raises(CacheUnavailable, match="CLUSTER_KIT_REDIS_URL"):
            await cluster.cache.set("key", 1)
        assert "CLUSTER_KIT_REDIS_URL" in cluster.health()["adapters"]["cache"]["detail"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "options",
    [
        {"name": "a b"},
        {"prefix": ""},
        {"ttl": 0},
        {"l1_size": -1},
        {"l1_size": True},
        {"backplane": 1},
        {"fail_safe": "1"},
        {"soft_timeout": 1},
        {"soft_timeout": 2, "hard_timeout": 1, "fail_safe": 60},
        {"hard_timeout": 0},
        {"eager": 1},
        {"jitter": -0.1},
        {"negative_ttl": 0},
        {"copy": "shallow"},
        {"store": ""},
    ],
    ids=str,
)
async def test_wrong_options_are_refused(
    options: dict[str, object], cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory()
    given = {"name": "rows", **options}

    with pytest.raises(ConfigurationError):
        await cluster.caches.create_cache(**given)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_prefix_belongs_to_one_cache_wherever_that_keeps_its_values(
    cluster_factory: ClusterFactory,
) -> None:
    redis = "redis://127.0.0.1:1"  # nobody is asked
    [cluster] = await cluster_factory(cache={"url": "memory://"}, redis_url=redis)
    await cluster.caches.create_cache("rows", prefix="both")

    with pytest.raises(ConfigurationError, match="prefix 'both' belongs to cache 'rows'"):
        await cluster.caches.create_cache("pages", prefix="both", store="redis")


@pytest.mark.asyncio
async def test_objects_without_a_json_form_are_shared_in_process(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(cache={"url": "memory://"})
    cache = await cluster.caches.create_cache("objects", copy="none")
    value = object()

    assert await cache.wrap("key", lambda: value) is value
    assert await cache.get("key") is value


@pytest.mark.asyncio
async def test_a_cluster_that_was_started_again_hears_once(
    cluster_factory: ClusterFactory,
) -> None:
    one, two = await cluster_factory(2, cache={"url": "memory://"})
    here, there = [await c.caches.create_cache("rows", backplane=True) for c in (one, two)]
    for _ in range(3):
        await two.stop()
        await two.start()
    await there.set("row", 1)

    await here.delete("row")

    await eventually(lambda: there.get("row"), lambda value: value is None)
    assert len(two.caches._pubsub._registrations) == 1


@pytest.mark.asyncio
async def test_a_first_use_that_meets_a_stop_leaves_a_cache_that_can_start_again(
    cluster_factory: ClusterFactory,
) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    class Slow(MemoryPubSub):
        async def bind(self, *args: Any, **kwargs: Any) -> Any:
            began.set()
            await go.wait()
            return await super().bind(*args, **kwargs)

    [cluster] = await cluster_factory(start=False)
    cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=Slow))
    await cluster.start()
    first = asyncio.get_running_loop().create_task(cluster.cache.set("key", 1))
    await began.wait()

    await cluster.stop()
    go.set()
    with pytest.raises(NotStartedError):
        await first
    await cluster.start()

    await cluster.cache.set("key", 2)
    assert await cluster.cache.get("key") == 2
    assert len(cluster.caches._pubsub._registrations) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("named", "loads"), [("own", 2), ("other", 1)])
async def test_invalidated_tags_end_the_joining_of_their_own_loads_alone(
    named: str, loads: int, shared: bool, cluster_factory: ClusterFactory
) -> None:
    url = f"memory://{cluster_factory.name}" if shared else "memory://"
    [cluster] = await cluster_factory(cache={"url": url})
    cache = await cluster.caches.create_cache("rows", ttl=60)
    began, go = asyncio.Semaphore(0), asyncio.Event()
    numbers = count(1)

    async def load() -> int:
        number = next(numbers)
        began.release()
        await go.wait()
        return number

    async with asyncio.TaskGroup() as group:
        before = group.create_task(cache.wrap("slow", load, tags=["own"]))
        await began.acquire()
        await cache.invalidate_tags(named)
        after = group.create_task(cache.wrap("slow", load, tags=["own"]))
        await eventually(lambda: cache.stats().joined + cache.stats().loads == 2)
        go.set()

    assert (before.result(), after.result()) == (1, loads)
    assert next(numbers) == loads + 1
    assert await cache.get("slow") == loads


@pytest.mark.asyncio
async def test_what_is_in_use_outlives_what_is_not(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster_kit_memory.cache_table.MOST_VALUES", 20)
    monkeypatch.setattr("cluster_kit.cache.engine.MOST_COUNTERS", 20)
    for url in ("memory://", f"memory://{cluster_factory.name}"):
        [cluster] = await cluster_factory(cache={"url": url})
        cache = await cluster.caches.create_cache("rows", l1_size=20)
        for number in range(100):
            await cache.set(f"k{number}", number)
            await cache.incr(f"login:{number}")
            assert await cache.get(f"k{number - number % 5}") == number - number % 5
            assert await cache.incr("hot") == number + 1


def test_a_hub_keeps_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster_kit_memory.cache_table.MOST_BYTES", 110)
    table = CacheTable("hub", SystemClock())
    for number in range(50):
        table.put(f"k{number}", b"x" * 30, None)
        table.put("hot", b"y" * 10, None)
    assert table.keys("") == ["k47", "k48", "k49", "hot"]
    for _ in range(200):
        table.add("counter", 1, None)
        table.swap("hot", b"z" * 10, b"y", None)
        table.take("hot")
        table.put("hot", b"y" * 10, -1)
        assert table.find("hot") is None
    assert sorted(table.keys("")) == ["counter", "k47", "k48", "k49"]

    table.put("large", b"x" * 111, None)
    assert table.keys("") == ["large"]
    table.put("small", b"", None)
    assert table.keys("") == ["small"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("redos://x", ConfigurationError),
        ("redis://localhost/0?dbb=1", ConfigurationError),
        ("redis://:secret@127.0.0.1:1", ConnectError),
        ("memcached://127.0.0.1:1", ConnectError),
    ],
)
async def test_a_wrong_url_fails_the_start_and_is_named(url: str, error: type[Exception]) -> None:
    cluster = Cluster("shop", settings=Settings(cache={"url": url}))

    with pytest.raises(error, match=r"CLUSTER_KIT_CACHE__URL\): ") as caught:
        await cluster.start()

    assert "secret" not in str(caught.value)
    assert cluster.health()["status"] != "ok"


@pytest.mark.asyncio
@pytest.mark.parametrize("locks", [{}, {"locks": {"url": "memory://"}}])
@pytest.mark.parametrize(
    ("server", "url", "fault"),
    [
        ("redis", "redis://localhost/0?nope=1", "unknown option 'nope'"),
        ("redis", "redis://localhost/abc", "'db' in .* must be a whole number"),
        ("redis", "redis+sentinel://localhost", "name of the service"),
        ("memcached", "memcached://localhost/1", "memcached has no databases"),
    ],
)
async def test_a_server_that_is_only_implied_has_a_right_url_at_start(
    server: str, url: str, fault: str, locks: dict[str, Any]
) -> None:
    given: dict[str, Any] = {f"{server}_url": url, **locks}
    cluster = Cluster("shop", settings=Settings(**given))

    named = rf"^{server}_url \(CLUSTER_KIT_{server.upper()}_URL\): .*{fault}"
    with pytest.raises(ConfigurationError, match=named):
        await cluster.start()


@pytest.mark.asyncio
async def test_a_server_without_stores_and_locks_is_for_whatever_else_it_has() -> None:
    cluster = Cluster("shop", settings=Settings(redis_url="redis://localhost/abc"))
    cluster.registry.register(AdapterSpec(name="aiocache", schemes=("redis",)))
    async with cluster:
        with pytest.raises(ConfigurationError, match=r"no locks: adapter 'aiocache' has none"):
            await cluster.locks.acquire("a")
        with pytest.raises(ConfigurationError, match=r"adapter 'aiocache' has no cache"):
            await cluster.cache.set("key", 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("raised", [RuntimeError("no luck"), ConfigurationError("no luck")])
async def test_what_a_store_raises_when_it_is_connected_is_told(raised: Exception) -> None:
    class Fails(MemoryCacheStore):
        async def connect(self) -> None:
            raise raised

    settings = Settings(redis_url="redis://localhost", locks={"url": "memory://"})
    cluster = Cluster("shop", settings=settings)
    cluster.registry.register(AdapterSpec(name="aiocache", schemes=("redis",), cache=Fails))
    async with cluster:
        with pytest.raises(type(raised), match="no luck"):
            await asyncio.wait_for(cluster.caches.create_cache("rows"), 10)
        assert "no luck" in cluster.health()["adapters"]["cache"]["detail"]


@pytest.mark.asyncio
async def test_a_store_that_is_only_implied_is_connected_when_it_is_used() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1", memcached_url="memcached://127.0.0.1:1")
    async with Cluster("shop", settings=settings) as cluster:
        assert cluster.health()["status"] == "ok"
        assert await cluster.cache.get("key") is None
        assert cluster.health()["status"] == "degraded"
    alone = Settings(memcached_url="memcached://127.0.0.1:1")  # of those who ask for it by name
    async with Cluster("shop", settings=alone) as cluster:
        await cluster.cache.set("key", 1)


def is_doubted(cache: Cache) -> bool:
    return "may be missed" in " ".join(cache.troubles())


@pytest.mark.asyncio
async def test_a_store_that_hangs_hides_no_lost_link_and_holds_no_stop_up(
    cluster_factory: ClusterFactory,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "LAST_WORDS", 0.3)
    stores: list[MemoryCacheStore] = []
    pauses = Pauses()

    def make(url: str, context: AdapterContext) -> CacheStore:
        stores.append(MemoryCacheStore(url, context))
        return PausingStore(stores[-1], pauses)

    [(cluster, link)] = await instances(cluster_factory, 1, store=make)
    hanging, other = [await cluster.caches.create_cache(name, backplane=True) for name in "ab"]
    stores[0].disconnect()
    await hanging.delete("row")  # others know, the store does not
    pauses.arm(0, after=False)
    stores[0].reconnect()
    await pauses.reached.wait()

    link.disconnect()
    for cache in (hanging, other):
        await eventually(partial(is_doubted, cache))

    pauses.arm(0, after=False)
    async with asyncio.timeout(5):
        await cluster.stop()
    assert "cache 'a': 1 invalidation was not told to all" in caplog.text
