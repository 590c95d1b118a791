from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from cluster_kit.broadcast import Broadcast
from cluster_kit.names import new_id
from cluster_kit.ports import AdapterContext, AdapterSpec, PubSubAdapter
from cluster_kit.testing.contracts.pubsub import Environment, Features, PubSubContract
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.exchange import EXCHANGES, Member
from cluster_kit_memory.options import parse_url
from cluster_kit_memory.pubsub import MemoryPubSub

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class MemoryEnvironment(Environment):
    """One hub; every instance's adapter is kept at hand, to break its link."""

    def __init__(self) -> None:
        self._url = f"memory://{uuid.uuid4().hex}"
        self._adapters: dict[str, MemoryPubSub] = {}

    async def url(self, index: int) -> str:
        return self._url

    def prepare(self, cluster: Cluster) -> None:
        cluster.registry.register(
            AdapterSpec(
                name=ADAPTER.name,
                schemes=ADAPTER.schemes,
                event_queue=ADAPTER.event_queue,
                pubsub=self._make,
                locks=ADAPTER.locks,
            )
        )

    def _make(self, url: str, context: AdapterContext) -> PubSubAdapter:
        adapter = self._adapters[context.instance_id] = MemoryPubSub(url, context)
        return adapter

    async def cut_off(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].disconnect()

    async def reconnect(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].reconnect()

    async def forget(self, cluster: Cluster) -> None:
        self._adapters[cluster.instance_id].forget()

    async def put(self, app: str, channel: str, body: bytes) -> None:
        message = Broadcast(realm="pubsub", channel=channel, id=new_id(), body=body)
        adapter = next(iter(self._adapters.values()))
        passer_by = Member(app, adapter)
        exchange = EXCHANGES.enter(parse_url(self._url), passer_by)
        exchange.publish(app, message, "ephemeral")
        EXCHANGES.leave(exchange, passer_by)


class TestMemoryPubSub(PubSubContract):
    features = Features()

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemoryEnvironment()
