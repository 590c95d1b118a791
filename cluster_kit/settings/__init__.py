"""Settings: from ``CLUSTER_KIT_*`` variables, a ``.env`` file, and arguments, in rising order."""

from __future__ import annotations

from cluster_kit.settings.groups import (
    CacheSettings,
    EventQueueSettings,
    LockSettings,
    PubSubSettings,
    RetrySettings,
    SyncMessagesSettings,
)
from cluster_kit.settings.model import Settings, check_settings
from cluster_kit.settings.values import ServerUrl
from cluster_kit.settings.worker_mode import WorkerMode

__all__ = [
    "CacheSettings",
    "EventQueueSettings",
    "LockSettings",
    "PubSubSettings",
    "RetrySettings",
    "ServerUrl",
    "Settings",
    "SyncMessagesSettings",
    "WorkerMode",
    "check_settings",
]
