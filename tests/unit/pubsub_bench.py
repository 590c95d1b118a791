"""Instances of publish and subscribe on one memory hub, without a cluster around them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from cluster_kit.broadcast import Broadcast
from cluster_kit.ports import AdapterContext
from cluster_kit.pubsub import PubSubManager
from cluster_kit.settings import PubSubSettings
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit_memory.pubsub import MemoryPubSub


class Instance:
    """One manager with its adapter; `events` has what it reported."""

    def __init__(self, name: str, url: str, **settings: Any) -> None:
        self.supervisor = Supervisor()
        self.events: list[tuple[str, Mapping[str, object]]] = []
        telemetry = Telemetry()
        telemetry.subscribe(lambda event, fields: self.events.append((event, fields)))
        self.manager = PubSubManager(name, PubSubSettings(**settings), telemetry=telemetry)
        context = AdapterContext(
            app="shop", instance_id=name, tasks=self.supervisor, emit=telemetry.emit
        )
        self.adapter = MemoryPubSub(url, context)

    async def open(self) -> None:
        await self.adapter.connect()
        await self.manager.open(self.adapter, self.supervisor)
        self.manager.start()

    def receive(self, seq: int, channel: str = "a", **more: Any) -> None:
        """Have a message arrive, of another instance unless said otherwise."""
        fields = {"id": str(seq), "body": b"%d" % seq, "origin": "other", "epoch": "e"} | more
        message = Broadcast(realm="pubsub", channel=channel, seq=seq, **fields)
        self.adapter.hand_over(message)

    async def close(self) -> None:
        await self.manager.close()
        await self.adapter.close()
        assert await self.supervisor.close() == []


class Stage:
    """So many instances on a hub of their own, as an async context."""

    def __init__(self, n: int, **settings: Any) -> None:
        self.url = f"memory://{uuid.uuid4().hex}"
        self.instances = [Instance(f"i{number}", self.url, **settings) for number in range(n)]

    async def __aenter__(self) -> list[Instance]:
        for instance in self.instances:
            await instance.open()
        return self.instances

    async def __aexit__(self, *exc: object) -> None:
        for instance in self.instances:
            await instance.close()
