"""Locks and caches on Redis and memcached.

URLs: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``rediss+sentinel://`` and
``memcached://``; `cluster_kit_aiocache.redis_options` and `cluster_kit_aiocache.memcached_options`
list what they may say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.ports import AdapterSpec, Driver
from cluster_kit.urls import url_scheme

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, CacheStore, LockAdapter

__all__ = ["ADAPTER"]

MEMCACHED = "memcached"
REDIS = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")


def _cache(url: str, context: AdapterContext) -> CacheStore:
    if url_scheme(url) == MEMCACHED:
        from cluster_kit_aiocache.memcached_store import MemcachedStore

        return MemcachedStore(url, context)
    from cluster_kit_aiocache.redis_store import RedisStore

    return RedisStore(url, context)


def _locks(url: str, context: AdapterContext) -> LockAdapter:
    if url_scheme(url) == MEMCACHED:
        from cluster_kit_aiocache.memcached_locks import MemcachedLocks

        return MemcachedLocks(url, context)
    # Imported here, for it loads the driver, which listing adapters must not.
    from cluster_kit_aiocache.redis_locks import RedisLocks

    return RedisLocks(url, context)


ADAPTER = AdapterSpec(
    name="aiocache",
    schemes=(*REDIS, MEMCACHED),
    locks=_locks,
    cache=_cache,
    drivers=(Driver(package="aiocache"), Driver(package="redis", schemes=REDIS)),
    install="pip install 'cluster-kit[redis]'",
)
"""Registered in the entry-point group ``cluster_kit.adapters``."""
