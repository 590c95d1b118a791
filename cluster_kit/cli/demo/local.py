"""Instances as objects of this process, on a hub of the memory adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from cluster_kit.cli.demo.settings import APP, demo_settings
from cluster_kit.cli.demo.workload import Workload
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Journal
    from cluster_kit.ports import AdapterContext

A = TypeVar("A")


@runtime_checkable
class Severable(Protocol):
    """An adapter whose link can be cut, and mended."""

    def disconnect(self, reason: str) -> None:
        """Cut it."""
        ...

    def reconnect(self) -> None:
        """Mend it."""
        ...


class LocalInstance:
    """An instance that dies by having its links cut: nothing it does reaches the others again."""

    def __init__(self, url: str, name: str, journal: Journal) -> None:
        self.name = name
        self._cluster = Cluster(APP, settings=demo_settings(url, name))
        self._workload = Workload(self._cluster, journal.add, self._cut)
        self._adapters: list[Severable] = []
        self._catch_adapters(url)

    async def start(self) -> None:
        """Start it."""
        await self._workload.prepare()
        await self._cluster.start()
        self._workload.note("started")

    async def stop(self) -> None:
        """Drain it."""
        unfinished = await self._cluster.stop()
        self._workload.note("stopped", ",".join(unfinished))

    async def crash(self) -> None:
        """Cut its links for good."""
        self._cut()

    async def died(self) -> bool:
        """Whether its links are cut."""
        return bool(self._cluster.health()["status"] == "down")

    def tell(self, order: str, **about: object) -> None:
        """Have it do something."""
        self._workload.obey(order, about)

    async def cut(self) -> None:
        """Cut its links."""
        self._cut()
        self._workload.note("cut")

    async def mend(self) -> None:
        """Mend its links."""
        for adapter in self._adapters:
            adapter.reconnect()
        await self._workload.note_mended()

    async def close(self) -> None:
        """Stop it without waiting for handlers."""
        await self._workload.close()
        await self._cluster.stop(0)

    def _cut(self) -> None:
        for adapter in self._adapters:
            adapter.disconnect("the demo cuts it off")

    def _catch_adapters(self, url: str) -> None:
        """Keep the adapters, which the cluster makes for itself, at hand."""
        spec = self._cluster.registry.find(url)
        self._cluster.registry.register(
            dataclasses.replace(
                spec,
                event_queue=spec.event_queue and self._catching(spec.event_queue),
                pubsub=spec.pubsub and self._catching(spec.pubsub),
                cache=spec.cache and self._catching(spec.cache),
                locks=spec.locks and self._catching(spec.locks),
            )
        )

    def _catching(self, make: Callable[[str, AdapterContext], A]) -> Callable[..., A]:
        def catch(url: str, context: AdapterContext) -> A:
            adapter = make(url, context)
            if not isinstance(adapter, Severable):
                raise ConfigurationError("the link of this adapter cannot be cut")
            self._adapters.append(adapter)
            return adapter

        return catch
