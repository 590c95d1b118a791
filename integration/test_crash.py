from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from cluster_kit import DeadReason
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually
from integration.load.fleet import Fleet
from integration.load.journal import Record, read
from integration.load.worker import CHANNEL

CRASH_LIMIT = 3
HEALTHY = 20


async def keep_alive(fleet: Fleet) -> None:
    """Replace a worker as soon as it has died, as a process supervisor would."""
    while True:
        name = await fleet.start()
        await fleet.wait(name)


def records(folder: Path, event: str) -> list[Record]:
    return [record for record in read(folder) if record.event == event]


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)  # seconds; it takes about 15
@pytest.mark.asyncio
async def test_a_task_that_kills_its_worker_ends_in_the_dead_letters(
    cluster_factory: ClusterFactory, rabbitmq: str, tmp_path: Path
) -> None:
    app = f"crash-{uuid.uuid4().hex[:8]}"
    [cluster] = await cluster_factory(name=app, url=rabbitmq)
    environment = {"CLUSTER_KIT_EVENT_QUEUE__CRASH_LIMIT": str(CRASH_LIMIT)}
    poison = await cluster.event_queue.publish(CHANNEL, {"exit": 9}, message_id="poison")
    healthy = await cluster.event_queue.publish_many(CHANNEL, [{"seconds": 0.0}] * HEALTHY)
    dead_letters = cluster.event_queue.dead_letters(CHANNEL)

    # One task at a time: otherwise the poison takes innocent ones along each time.
    async with Fleet(tmp_path, rabbitmq, app, concurrency=1, environment=environment) as fleet:
        keeper = asyncio.create_task(keep_alive(fleet))
        await eventually(dead_letters.count, timeout=120.0, interval=0.2)
        await eventually(lambda: len(records(tmp_path, "done")) == HEALTHY, timeout=60.0)
        keeper.cancel()
        await asyncio.wait({keeper})

    [letter] = await dead_letters.browse()
    assert (letter.id, letter.reason, letter.payload) == (poison, DeadReason.CRASHED, {"exit": 9})
    started = [record.task for record in records(tmp_path, "task.started")]
    assert started.count(poison) == CRASH_LIMIT + 1  # the first delivery, then the redeliveries
    assert {record.task for record in records(tmp_path, "done")} == set(healthy)
