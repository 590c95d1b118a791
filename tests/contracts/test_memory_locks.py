from __future__ import annotations

import dataclasses
import uuid
from typing import TYPE_CHECKING

import pytest

from cluster_kit.ports import AdapterContext, LockAdapter
from cluster_kit.testing.contracts.locks import Environment, Features, LockContract
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.locks import MemoryLocks

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class MemoryEnvironment(Environment):
    """One hub; every instance's adapter is kept at hand, to break its link."""

    def __init__(self) -> None:
        self._url = f"memory://{uuid.uuid4().hex}"
        self._adapters: dict[str, MemoryLocks] = {}

    async def url(self, index: int) -> str:
        return self._url

    def prepare(self, cluster: Cluster) -> None:
        cluster.registry.register(dataclasses.replace(ADAPTER, locks=self._make))

    def _make(self, url: str, context: AdapterContext) -> LockAdapter:
        adapter = self._adapters[context.instance_id] = MemoryLocks(url, context)
        return adapter

    async def cut_off(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].disconnect()

    async def reconnect(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].reconnect()

    async def forget(self) -> None:
        next(iter(self._adapters.values())).forget()


class TestMemoryLocks(LockContract):
    features = Features(
        frozen_link=False,  # there is no wire on which anything could be lost
        dropped_answers=False,
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemoryEnvironment()
