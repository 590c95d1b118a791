"""Settings of the instances of the demo."""

from __future__ import annotations

from cluster_kit.cli.demo.task_handlers import CRASH_LIMIT
from cluster_kit.settings import (
    CacheSettings,
    EventQueueSettings,
    LockSettings,
    PubSubSettings,
    Settings,
)
from cluster_kit.settings.model import ArgumentSettings
from cluster_kit.urls import url_scheme

APP = "cluster-kit-demo"
"""Application of the demo; on a broker its queues stay, empty, for the next one."""

MEMORY = "memory"
"""Scheme of the server that is in this process."""

STICKY_EXPIRES = 20.0
"""Seconds after which a broker forgets what it keeps for an instance of a demo that is over."""

KEPT = "kept"
"""Channel whose messages wait for an instance that is away."""


def demo_settings(url: str, instance_id: str | None) -> Settings:
    """Return the settings of an instance: everything on one server, as far as it can be."""
    local = url_scheme(url) == MEMORY
    return ArgumentSettings(
        app=APP,
        event_queue=EventQueueSettings(url=url, crash_limit=CRASH_LIMIT),
        pubsub=PubSubSettings(url=url, transports={KEPT: "sticky"}, sticky_expires=STICKY_EXPIRES),
        cache=CacheSettings(url=url if local else None),
        locks=LockSettings(url=url),
        drain_timeout=10.0,
        instance_id=instance_id,
    )
