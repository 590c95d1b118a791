"""What is started and stopped with a cluster beside its services and plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.clock import utc
from cluster_kit.errors import ConfigurationError
from cluster_kit.supervisor import logged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from cluster_kit.ports import (
        AdapterContext,
        AdapterHealth,
        ClusterHealth,
        Extension,
        Health,
        HealthStatus,
    )

LEAST_SECONDS = 1.0
"""What each extension has to stop, even when no time is left."""

_WORST: tuple[HealthStatus, ...] = ("down", "degraded", "ok")


class Extensions:
    """Those of one cluster, in the order they were added.

    Args:
        hook: to be entered around what is called of each.
    """

    def __init__(self, hook: Callable[[], AbstractContextManager[None]]) -> None:
        self._hook = hook
        self._all: dict[str, Extension] = {}
        self._started: list[Extension] = []

    def add(self, extension: Extension) -> None:
        """Add one; `ConfigurationError` where its name is taken."""
        taken = self._all.get(extension.name)
        if taken is not None:
            raise ConfigurationError(_clash(taken, extension))
        self._all[extension.name] = extension

    async def start(self, context: AdapterContext) -> None:
        """Start all, or raise what one of them raised."""
        for extension in self._all.values():
            self._started.append(extension)
            with self._hook():
                await extension.start(context)

    async def stop(self, left: Callable[[], float]) -> None:
        """Stop in reverse what was started; no failure keeps the rest back.

        Args:
            left: of the time the cluster has to stop, seconds; may be negative.
        """
        while self._started:
            extension = self._started.pop()
            async with logged(f"stopping {extension.name}"):
                with self._hook():
                    await extension.stop(max(LEAST_SECONDS, left()))

    def health(self) -> dict[str, Health]:
        """Return the state of each that runs."""
        return {extension.name: extension.health() for extension in self._started}


def overall(states: Mapping[str, Health], *, ready: bool) -> ClusterHealth:
    """Return the worst status, and each state as it is shown."""
    shown: dict[str, AdapterHealth] = {
        name: {
            "status": health.status,
            "detail": health.detail,
            "since": utc(health.since).isoformat(),
        }
        for name, health in states.items()
    }
    statuses: list[HealthStatus] = [health.status for health in states.values()]
    worst: HealthStatus = min(statuses, key=_WORST.index) if statuses else "down"
    return {"status": worst, "ready": ready, "adapters": shown}


def _clash(taken: Extension, extension: Extension) -> str:
    kind, other = type(extension).__name__, type(taken).__name__
    if kind == other:
        return f"this cluster was given a second {kind} named {extension.name!r}; make one of them"
    return f"this cluster was given {other} and {kind}, both named {extension.name!r}"
