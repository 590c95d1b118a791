"""Shared middleware for asyncio services that run as several instances.

The names a user needs are here and loaded when first used, so that importing the package costs
next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.after_commit import PublishFailure
    from cluster_kit.broadcast import Event
    from cluster_kit.cache import MISSING, Cache, CachedFunction, CacheManager, CacheStats, loaded
    from cluster_kit.cluster import Cluster
    from cluster_kit.errors import ClusterKitError
    from cluster_kit.event_queue import EventQueue
    from cluster_kit.locks import Lease, LockManager
    from cluster_kit.message import DeadLetter, DeadReason, Delivery, Reject, Retry, Snooze
    from cluster_kit.plugin import Plugin
    from cluster_kit.pubsub import PubSubManager, Subscription
    from cluster_kit.retry import RetryPolicy
    from cluster_kit.settings import Settings
    from cluster_kit.sync_messages import SyncMessageManager

__version__: str

__all__ = [
    "MISSING",
    "Cache",
    "CacheManager",
    "CacheStats",
    "CachedFunction",
    "Cluster",
    "ClusterKitError",
    "DeadLetter",
    "DeadReason",
    "Delivery",
    "Event",
    "EventQueue",
    "Lease",
    "LockManager",
    "Plugin",
    "PubSubManager",
    "PublishFailure",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Settings",
    "Snooze",
    "Subscription",
    "SyncMessageManager",
    "__version__",
    "loaded",
]

_HOME = {
    "MISSING": "cache",
    "Cache": "cache",
    "CacheManager": "cache",
    "CacheStats": "cache",
    "CachedFunction": "cache",
    "Cluster": "cluster",
    "ClusterKitError": "errors",
    "DeadLetter": "message",
    "DeadReason": "message",
    "Delivery": "message",
    "Event": "broadcast",
    "EventQueue": "event_queue",
    "Lease": "locks",
    "loaded": "cache",
    "LockManager": "locks",
    "Plugin": "plugin",
    "PubSubManager": "pubsub",
    "PublishFailure": "after_commit",
    "Reject": "message",
    "Retry": "message",
    "RetryPolicy": "retry",
    "Settings": "settings",
    "Snooze": "message",
    "Subscription": "pubsub",
    "SyncMessageManager": "sync_messages",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - costs more than all else here

        return version("cluster-kit")
    if (home := _HOME.get(name)) is not None:
        return getattr(import_module(f"cluster_kit.{home}"), name)
    text = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(text)


def __dir__() -> list[str]:
    return sorted(__all__)
