"""The in-process adapter: named hubs of this process, with an optional file behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.ports import AdapterSpec

if TYPE_CHECKING:
    from cluster_kit.ports import (
        AdapterContext,
        CacheStore,
        EventQueueAdapter,
        LockAdapter,
        PubSubAdapter,
    )

__all__ = ["ADAPTER"]


def _event_queue(url: str, context: AdapterContext) -> EventQueueAdapter:
    from cluster_kit_memory.event_queue import MemoryEventQueue

    return MemoryEventQueue(url, context)


def _pubsub(url: str, context: AdapterContext) -> PubSubAdapter:
    from cluster_kit_memory.pubsub import MemoryPubSub

    return MemoryPubSub(url, context)


def _cache(url: str, context: AdapterContext) -> CacheStore:
    from cluster_kit_memory.cache import MemoryCacheStore

    return MemoryCacheStore(url, context)


def _locks(url: str, context: AdapterContext) -> LockAdapter:
    from cluster_kit_memory.locks import MemoryLocks

    return MemoryLocks(url, context)


ADAPTER = AdapterSpec(
    name="memory",
    schemes=("memory",),
    event_queue=_event_queue,
    pubsub=_pubsub,
    locks=_locks,
    cache=_cache,
)
"""Serves ``memory://``: see `cluster_kit_memory.options` for its URLs."""
