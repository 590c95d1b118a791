"""A handler runs on while its connection is lost again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest

from cluster_kit.ports import delivery_limit
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.recorder import Recorder, until
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.connection import supervised

pytestmark = pytest.mark.asyncio


def more_than(least: int) -> Callable[[int], bool]:
    return lambda number: number > least


async def test_a_run_outlives_more_losses_than_the_broker_would_allow_a_task(
    cluster_factory: ClusterFactory,
    rabbitmq: str,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervised, "_STEADY", 0.0)  # or each loss is waited for longer
    [watcher] = await cluster_factory(1, url=rabbitmq)
    [cluster] = await cluster_factory(1, url=fault_proxy.url)
    started: list[Mapping[str, object]] = []

    def hear(event: str, fields: Mapping[str, object]) -> None:
        if event == "consumer.started":
            started.append(fields)

    async def waiting() -> int:
        depth = await watcher.event_queue.depth("long")
        assert depth is not None
        return depth.ready

    cluster.telemetry.subscribe(hear)
    gate = asyncio.Event()
    recorder = Recorder(until(gate))
    cluster.event_queue.subscribe("long", recorder.handle)
    published = await cluster.event_queue.publish("long", 1, timeout=600)
    await recorder.started()
    for losses in range(1, delivery_limit(0) + 6):
        fault_proxy.cut()
        await eventually(lambda: len(started), more_than(losses))
        # Where a publish was cut short its copy may be stored twice: the second one waits.
        with suppress(AssertionError):
            await eventually(waiting, lambda ready: ready == 0, timeout=2.0)
    gate.set()

    await recorder.finished()
    await eventually(waiting, lambda ready: ready == 0)
    depth = await eventually(
        lambda: watcher.event_queue.depth("long"), lambda depth: depth is not None
    )
    assert recorder.ids == [published]
    assert depth is not None
    assert depth.dead == 0
