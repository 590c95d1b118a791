"""What an adapter implements and what it is given: all that an adapter's author must read.

An adapter moves bytes; policy (attempts, timeouts, decoding, what becomes of a message) lives in
the services above. Every adapter passes `cluster_kit.testing.contracts`. There is one module for
each capability, and an adapter may have any of them.
"""

from __future__ import annotations

from cluster_kit.ports.cache import HEAD_BYTES, CacheFactory, CacheStore, StoreCapabilities
from cluster_kit.ports.context import (
    AdapterContext,
    AdapterHealth,
    BroadcastLimits,
    ClusterHealth,
    Emit,
    Health,
    HealthStatus,
    TaskSpawner,
)
from cluster_kit.ports.event_queue import (
    Consumer,
    DeadEntry,
    EventQueueAdapter,
    EventQueueFactory,
    QueueDepth,
    Received,
)
from cluster_kit.ports.extension import (
    BatchOptions,
    BroadcastOutlet,
    Extensible,
    Extension,
    Outlets,
    TaskOptions,
    TaskOutlet,
)
from cluster_kit.ports.locks import (
    Claim,
    Contender,
    Grant,
    LockAdapter,
    LockCapabilities,
    LockFactory,
    LockHolder,
    Quota,
    QuotaKeeper,
)
from cluster_kit.ports.pubsub import Listener, PubSubAdapter, PubSubFactory
from cluster_kit.ports.spec import AdapterSpec, Driver
from cluster_kit.ports.transactions import TransactionAdapter, TransactionSupport, Waiting

__all__ = [
    "HEAD_BYTES",
    "AdapterContext",
    "AdapterHealth",
    "AdapterSpec",
    "BatchOptions",
    "BroadcastLimits",
    "BroadcastOutlet",
    "CacheFactory",
    "CacheStore",
    "Claim",
    "ClusterHealth",
    "Consumer",
    "Contender",
    "DeadEntry",
    "Driver",
    "Emit",
    "EventQueueAdapter",
    "EventQueueFactory",
    "Extensible",
    "Extension",
    "Grant",
    "Health",
    "HealthStatus",
    "Listener",
    "LockAdapter",
    "LockCapabilities",
    "LockFactory",
    "LockHolder",
    "Outlets",
    "PubSubAdapter",
    "PubSubFactory",
    "QueueDepth",
    "Quota",
    "QuotaKeeper",
    "Received",
    "StoreCapabilities",
    "TaskOptions",
    "TaskOutlet",
    "TaskSpawner",
    "TransactionAdapter",
    "TransactionSupport",
    "Waiting",
]
