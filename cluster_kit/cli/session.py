"""A connection for the time of one command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.cli.reporting import naming_url
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError
from cluster_kit.settings import Settings

if TYPE_CHECKING:
    from cluster_kit.settings.model import SettingsValues

T = TypeVar("T")

ANY_APP = "cluster-kit"
"""Name under which a command works that concerns queues of no particular application."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a command line says about broker and application; the settings say the rest.

    `shared` means that no application is needed.
    """

    url: str | None
    app: str | None
    shared: bool = False

    def settings(self) -> Settings:
        """Return the settings of a passing client.

        Raises:
            SettingsError: a variable is wrong.
            ConfigurationError: broker or application are not known.
        """
        # A command serves nothing, and it must not pose as the instance configured here.
        values: SettingsValues = {"worker_mode": "-", "instance_id": None}
        if self.url is not None:
            values["event_queue"] = {"url": self.url}
        if self.app is not None:
            values["app"] = self.app
        settings = Settings(**values)
        if settings.url_for("event_queue").scheme == "memory":
            raise ConfigurationError(
                "no broker: set CLUSTER_KIT_AMQP_URL or give --url; "
                "memory:// lies inside another process, which no command can look into"
            )
        if settings.app is None and not self.shared:
            raise ConfigurationError("which application? Set CLUSTER_KIT_APP or give --app")
        return settings

    def run(self, work: Callable[[Cluster], Awaitable[T]]) -> T:
        """Connect, await `work`, disconnect and return its result. Raises as `Cluster.start`."""
        settings = self.settings()
        # What the library would log, the command says in its own line.
        logging.getLogger().addHandler(logging.NullHandler())
        with naming_url(self.url):
            return asyncio.run(_work(settings, work))


async def _work(settings: Settings, work: Callable[[Cluster], Awaitable[T]]) -> T:
    async with Cluster(settings.app or ANY_APP, settings=settings) as cluster:
        return await work(cluster)
