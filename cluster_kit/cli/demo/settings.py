"""Settings of the instances of the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.cli.demo.task_handlers import CRASH_LIMIT
from cluster_kit.settings import (
    CacheSettings,
    EventQueueSettings,
    LockSettings,
    PubSubSettings,
    Settings,
)
from cluster_kit.urls import url_scheme

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

APP = "cluster-kit-demo"
"""Application of the demo; on a broker its queues stay, empty, for the next one."""

MEMORY = "memory"
"""Scheme of the server that is in this process."""

STICKY_EXPIRES = 20.0
"""Seconds after which a broker forgets what it keeps for an instance of a demo that is over."""

KEPT = "kept"
"""Channel whose messages wait for an instance that is away."""


class DemoSettings(Settings):
    """Settings that neither variables nor a ``.env`` file have a say in."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments alone; part of the interface of pydantic-settings."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def demo_settings(url: str, instance_id: str | None) -> Settings:
    """Return the settings of an instance: everything on one server, as far as it can be."""
    local = url_scheme(url) == MEMORY
    return DemoSettings(
        app=APP,
        event_queue=EventQueueSettings(url=url, crash_limit=CRASH_LIMIT),
        pubsub=PubSubSettings(url=url, transports={KEPT: "sticky"}, sticky_expires=STICKY_EXPIRES),
        cache=CacheSettings(url=url if local else None),
        locks=LockSettings(url=url),
        drain_timeout=10.0,
        instance_id=instance_id,
    )
