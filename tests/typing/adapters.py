"""What fits into which protocol, for authors of adapters. Checked, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from cluster_kit.clock import SystemClock
from cluster_kit.codec import JsonCodec
from cluster_kit.ports import AdapterContext, AdapterSpec
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.clock import FakeClock

if TYPE_CHECKING:
    from cluster_kit import Cluster
    from cluster_kit.clock import Clock
    from cluster_kit.codec import Codec
    from cluster_kit.plugin import Host
    from cluster_kit.ports import (
        Consumer,
        Emit,
        EventQueueAdapter,
        Listener,
        PubSubAdapter,
        TaskSpawner,
    )
    from cluster_kit.pubsub.reception import Reception
    from cluster_kit_memory.consumer import MemoryConsumer
    from cluster_kit_memory.event_queue import MemoryEventQueue
    from cluster_kit_memory.pubsub import MemoryPubSub


def broadcasts_fit(pubsub: MemoryPubSub, reception: Reception) -> None:
    _pubsub: PubSubAdapter = pubsub
    _listener: Listener = reception


def fits(cluster: Cluster, queue: MemoryEventQueue, consumer: MemoryConsumer) -> None:
    _clocks: list[Clock] = [SystemClock(), FakeClock()]
    _codec: Codec = JsonCodec()
    _tasks: TaskSpawner = Supervisor()
    _emit: Emit = Telemetry().emit
    _host: Host = cluster
    _queue: EventQueueAdapter = queue
    _consumer: Consumer = consumer


def a_third_party(url: str, context: AdapterContext) -> MemoryEventQueue:
    from cluster_kit_memory.event_queue import MemoryEventQueue  # noqa: PLC0415 - as a factory does

    assert_type(context.app, str)
    assert_type(context.connect_timeout, float)
    return MemoryEventQueue(url, context)


ADAPTER = AdapterSpec(name="mine", schemes=("mine",), event_queue=a_third_party)


async def supervised(supervisor: Supervisor) -> None:
    async def count() -> int:
        return 1

    assert_type(await supervisor.spawn(count(), name="count"), int)
    assert_type(await supervisor.run_all([count, count], limit=2), list[int | Exception])
    assert_type(await supervisor.run_in_thread(lambda: "text", name="text"), str)
    assert_type(await supervisor.close(), list[str])
