"""What the health of an instance says of its caches and their stores."""

from __future__ import annotations

import dataclasses

import pytest

from cluster_kit.broadcast import Binding
from cluster_kit.errors import TopologyError
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit_memory import ADAPTER
from cluster_kit_memory.pubsub import MemoryPubSub


@pytest.mark.asyncio
async def test_caches_that_cannot_be_used_are_shown_until_they_can(
    cluster_factory: ClusterFactory,
) -> None:
    wrong = TopologyError("exchange 'x'", "type is 'fanout' on the broker, 'topic' expected")

    class Refuses(MemoryPubSub):
        async def bind(self, binding: Binding) -> None:
            if broken and binding.realm == "cache":
                raise wrong
            await super().bind(binding)

    broken = True
    [cluster] = await cluster_factory(
        start=False, cache={"url": f"memory://{cluster_factory.name}"}
    )
    cluster.registry.register(dataclasses.replace(ADAPTER, pubsub=Refuses))
    await cluster.start()
    with pytest.raises(TopologyError):
        await cluster.caches.create_cache("rows", backplane=True)
    rows = cluster.caches.get_cache("rows")
    with pytest.raises(TopologyError):
        await rows.get("key")

    assert rows.troubles() == [f"cache 'rows' could not be used: {wrong}"]
    shown = cluster.health()
    assert shown["status"] == "degraded"
    assert shown["adapters"]["cache"]["detail"].endswith(f"could not be used: {wrong}")

    broken = False
    assert await rows.get("key") is None
    assert rows.troubles() == []
    assert cluster.health()["status"] == "ok"
