from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import LifecycleError
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder

ROUNDS, CALLS = 10, 50


async def start_unless_stopped(cluster: Cluster) -> None:
    with suppress(LifecycleError):
        await cluster.start()


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_start_and_stop_from_many_tasks_at_once_end_well(
    cluster_factory: ClusterFactory, seed: int
) -> None:
    [keeper, cluster] = await cluster_factory(2, start=False)
    await keeper.start()
    recorder = Recorder()
    cluster.event_queue.subscribe("work", recorder.handle, concurrency=3)
    chance = random.Random(seed)
    ids = await keeper.event_queue.publish_many("work", range(20))

    async def call(start: bool, pause: float) -> None:
        await asyncio.sleep(pause)
        if start:
            await start_unless_stopped(cluster)
        else:
            await cluster.stop(timeout=1)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLS):
            group.create_task(call(chance.random() < 0.5, chance.random() * 0.05))

    assert await cluster.stop() == []
    assert cluster.health() == {"status": "down", "ready": False, "adapters": {}}
    await cluster.start()
    assert cluster.health()["status"] == "ok"
    await recorder.finished(20)
    assert sorted(recorder.ids) == sorted(ids)


@pytest.mark.asyncio
async def test_stopping_while_starting_leaves_nothing_behind(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(start=False)
    for _ in range(CALLS):
        async with asyncio.TaskGroup() as group:
            group.create_task(start_unless_stopped(cluster))
            await asyncio.sleep(0)
            group.create_task(cluster.stop())
    await cluster.stop()

    before = asyncio.all_tasks()
    await cluster.start()
    await cluster.stop()
    assert asyncio.all_tasks() <= before


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_can_be_tried_again(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(start=False)
    recorder = Recorder()
    cluster.event_queue.subscribe("work", recorder.handle)
    for turns in range(20):
        async with asyncio.TaskGroup() as group:
            start = group.create_task(cluster.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            start.cancel()
        await cluster.stop()

    await cluster.start()
    await cluster.event_queue.publish("work", 1)
    await recorder.finished()
