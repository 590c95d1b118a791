"""The backend of aiocache for Redis, around a client made here.

aiocache makes a client from host, port and password alone: no TLS authorities, no Unix socket, no
sentinels, no user. So it is given a pool that was made here, and its client is what everything of
this package talks to. The methods of its backend are for values; a lock needs scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiocache.backends.redis import RedisCache  # pyright: ignore[reportMissingTypeStubs]

from cluster_kit_aiocache.redis_client import make_client
from cluster_kit_aiocache.sharing import Shared

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_aiocache.redis_options import RedisOptions


def _redis(options: RedisOptions, context: AdapterContext) -> Any:  # noqa: ANN401 - it has no types
    client = make_client(options, name=f"{context.app}.{context.instance_id}")

    def pool(**_: object) -> object:
        return client.connection_pool

    return RedisCache(connection_pool_class=pool)


async def _close_redis(cache: Any) -> None:  # noqa: ANN401 - it has no types
    await cache.client.aclose()


REDIS: Shared[RedisOptions, Any] = Shared(_redis, _close_redis)
"""Of this process: a `RedisCache` for each server and instance."""
