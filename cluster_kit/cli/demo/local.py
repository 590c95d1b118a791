"""Instances as objects of this process, on a hub of the memory adapter."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cluster_kit.cli.demo.stage import APP, demo_settings
from cluster_kit.cli.demo.workload import Workload
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Journal
    from cluster_kit.ports import AdapterContext, EventQueueAdapter


@runtime_checkable
class Severable(Protocol):
    """An adapter whose link can be cut."""

    def disconnect(self, reason: str) -> None:
        """Cut it."""
        ...


class LocalInstance:
    """An instance that dies by having its link cut: nothing it does reaches the others again."""

    def __init__(self, url: str, name: str, journal: Journal) -> None:
        self.name = name
        self._cluster = Cluster(APP, settings=demo_settings(url, name))
        self._workload = Workload(self._cluster, journal.add, self._cut)
        self._adapter: object = None
        self._catch_adapter(url)

    async def start(self) -> None:
        """Start it."""
        await self._cluster.start()
        self._workload.note("started")

    async def stop(self) -> None:
        """Drain it."""
        unfinished = await self._cluster.stop()
        self._workload.note("stopped", ",".join(unfinished))

    async def crash(self) -> None:
        """Cut its link."""
        self._cut()

    async def died(self) -> bool:
        """Whether its link is cut."""
        return bool(self._cluster.health()["status"] == "down")

    async def fix(self) -> None:
        """Repair its faulty handler."""
        self._workload.fix()

    async def close(self) -> None:
        """Stop it without waiting for handlers."""
        await self._cluster.stop(0)

    def _cut(self) -> None:
        if not isinstance(self._adapter, Severable):
            raise ConfigurationError("the link of this adapter cannot be cut")
        self._adapter.disconnect("the demo lets it crash")

    def _catch_adapter(self, url: str) -> None:
        """Keep the adapter, which the cluster makes for itself, at hand."""
        spec = self._cluster.registry.find(url)
        make = spec.event_queue
        if make is None:
            raise ConfigurationError(f"adapter {spec.name!r} has no event_queue")

        def catch(url: str, context: AdapterContext) -> EventQueueAdapter:
            self._adapter = adapter = make(url, context)
            return adapter

        self._cluster.registry.register(dataclasses.replace(spec, event_queue=catch))
