"""Who is measured as a cache: this library, and others as their documents use them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cluster_kit.cache.options import CacheValues

TTL = 600

Get = Callable[[str], Awaitable[object]]


class Set(Protocol):
    """Stores a value for `TTL` seconds."""

    def __call__(self, key: str, value: object) -> Awaitable[object]:
        """Store it."""
        ...


Calls = tuple[Get, Set]
Opened = AbstractAsyncContextManager[Calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A cache, or a way to use it.

    Attributes:
        title: its name for people.
        module: that has to be installed.
        packages: distributions whose versions a figure depends on.
        in_process: opens one that keeps values in the process.
        on_redis: opens one that keeps them on the Redis of a URL and nowhere else; None where that
            is the same as another contender.
        note: what a reader of its figures must know.
    """

    title: str
    module: str
    packages: Sequence[str]
    in_process: Callable[[], Opened]
    on_redis: Callable[[str], Opened] | None = None
    note: str


@asynccontextmanager
async def _own(url: str, **options: object) -> AsyncIterator[Calls]:
    from cluster_kit import Cluster, Settings

    given: CacheValues = {}
    given.update(options)  # type: ignore[typeddict-item]
    settings = Settings(cache={"url": url}, event_queue={"url": "memory://"})
    async with Cluster("bench", settings=settings) as cluster:
        cache = await cluster.caches.create_cache("bench", **given)
        yield cache.get, lambda key, value: cache.set(key, value, TTL)


@asynccontextmanager
async def _aiocache(**options: object) -> AsyncIterator[Calls]:
    from aiocache import SimpleMemoryCache

    cache = SimpleMemoryCache(**options)
    yield cache.get, lambda key, value: cache.set(key, value, ttl=TTL)
    await cache.close()


@asynccontextmanager
async def _aiocache_on_redis(url: str) -> AsyncIterator[Calls]:
    from aiocache import RedisCache
    from aiocache.serializers import JsonSerializer

    parts = urlsplit(url)
    cache = RedisCache(endpoint=parts.hostname, port=parts.port, serializer=JsonSerializer())
    yield cache.get, lambda key, value: cache.set(key, value, ttl=float(TTL))
    await cache.close()


@asynccontextmanager
async def _cashews(url: str) -> AsyncIterator[Calls]:
    from cashews import Cache

    cache = Cache()
    cache.setup(url)
    yield cache.get, lambda key, value: cache.set(key, value, expire=TTL)
    await cache.close()


@asynccontextmanager
async def _cashews_backend() -> AsyncIterator[Calls]:
    from cashews.backends.memory import Memory

    cache = Memory()
    await cache.init()
    yield cache.get, lambda key, value: cache.set(key, value, expire=TTL)
    with contextlib.suppress(AttributeError):
        await cache.close()


CONTENDERS: Mapping[str, Contender] = {
    "cluster_kit": Contender(
        title="cluster-kit",
        module="cluster_kit",
        packages=("cluster-kit", "aiocache", "redis"),
        in_process=partial(_own, "memory://"),
        on_redis=partial(_own, l1_size=0),
        note="every caller has a value of its own; on Redis the complete envelope, one round trip",
    ),
    "cluster_kit_objects": Contender(
        title="cluster-kit, copy=none",
        module="cluster_kit",
        packages=(),
        in_process=partial(_own, "memory://", copy="none"),
        note="hands out the very object, as aiocache does",
    ),
    "aiocache": Contender(
        title="aiocache",
        module="aiocache",
        packages=("aiocache", "redis"),
        in_process=_aiocache,
        on_redis=_aiocache_on_redis,
        note="as it comes: a timeout of 5 s; the very object in memory, plain JSON on Redis",
    ),
    "aiocache_untimed": Contender(
        title="aiocache, timeout=None",
        module="aiocache",
        packages=(),
        in_process=partial(_aiocache, timeout=None),
        note="a call never ends on a server that does not answer",
    ),
    "cashews": Contender(
        title="cashews",
        module="cashews",
        packages=("cashews",),
        in_process=partial(_cashews, "mem://"),
        on_redis=_cashews,
        note="its front; pickled on Redis, signed where a secret is given, which is not so here",
    ),
    "cashews_backend": Contender(
        title="cashews, its backend",
        module="cashews",
        packages=(),
        in_process=_cashews_backend,
        note="the memory backend alone, without what its front does around it",
    ),
}


def installed() -> list[str]:
    """Return the contenders whose libraries are here."""
    return [name for name, contender in CONTENDERS.items() if find_spec(contender.module)]
