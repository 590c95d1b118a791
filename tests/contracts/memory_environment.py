"""A hub for the scenarios of a contract, and hands on the adapters that are made of it."""

from __future__ import annotations

import dataclasses
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from cluster_kit.ports import AdapterContext
from cluster_kit.testing.contracts.common import BaseEnvironment
from cluster_kit_memory import ADAPTER

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class Breakable(Protocol):
    def disconnect(self) -> None: ...

    def reconnect(self) -> None: ...


A = TypeVar("A", bound=Breakable)


class OneHub(BaseEnvironment, Generic[A]):
    """Every instance's adapter is kept at hand, to break its link. A subclass names their class."""

    adapter: ClassVar[type[Any]]

    def __init__(self, query: str = "") -> None:
        self.hub = f"memory://{uuid.uuid4().hex}{query}"
        self.adapters: dict[str, A] = {}

    async def url(self, index: int) -> str:
        return self.hub

    def prepare(self, cluster: Cluster) -> None:
        made: Any = {self.capability: self._keep}
        cluster.registry.register(dataclasses.replace(ADAPTER, **made))

    def _keep(self, url: str, context: AdapterContext) -> A:
        made: A = self.adapter(url, context)
        self.adapters[context.instance_id] = made
        return made

    @property
    def any_adapter(self) -> A:
        return next(iter(self.adapters.values()))

    async def cut_off(self, cluster: Cluster) -> None:
        self.adapters[cluster.instance_id].disconnect()

    async def reconnect(self, cluster: Cluster) -> None:
        self.adapters[cluster.instance_id].reconnect()
