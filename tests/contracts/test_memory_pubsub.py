from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster_kit.broadcast import Broadcast
from cluster_kit.names import new_id
from cluster_kit.testing.contracts.pubsub import Environment, Features, PubSubContract
from cluster_kit_memory.exchange import EXCHANGES, Member
from cluster_kit_memory.options import parse_url
from cluster_kit_memory.pubsub import MemoryPubSub
from tests.contracts.memory_environment import OneHub

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class MemoryEnvironment(OneHub[MemoryPubSub], Environment):
    adapter = MemoryPubSub

    async def forget(self, cluster: Cluster) -> None:
        self.adapters[cluster.instance_id].forget()

    async def put(self, app: str, channel: str, body: bytes) -> None:
        message = Broadcast(realm="pubsub", channel=channel, id=new_id(), body=body)
        passer_by = Member(app, self.any_adapter)
        exchange = EXCHANGES.enter(parse_url(self.hub), passer_by)
        exchange.publish(app, message, "ephemeral")
        EXCHANGES.leave(exchange, passer_by)


class TestMemoryPubSub(PubSubContract):
    features = Features()

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemoryEnvironment()
