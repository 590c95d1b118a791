from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path

import pytest

from cluster_kit import DeadReason, RetryPolicy
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually
from integration.load.fleet import Fleet
from integration.load.journal import Record, read
from integration.load.worker import CHANNEL

CRASH_LIMIT = 3
HEALTHY = 20

FAILS_AND_HANGS = """
import asyncio
from cluster_kit import Cluster, Delivery, RetryPolicy

async def handle(_: object, delivery: Delivery) -> None:
    print(delivery.attempt, delivery.redelivered, flush=True)
    if delivery.attempt < 3:
        raise ValueError("no")
    await asyncio.sleep(3600)

cluster = Cluster()
cluster.event_queue.subscribe("work", handle, retry=RetryPolicy(immediate=2))
asyncio.run(cluster.run_until_signal())
"""

IGNORES_ITS_CANCELLATION = """
import asyncio
from contextlib import suppress
from cluster_kit import Cluster

async def handle(_: object) -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

async def main() -> None:
    cluster = Cluster()
    cluster.telemetry.subscribe(
        lambda event, _: print(event, flush=True) if event == "task.dead" else None
    )
    cluster.event_queue.subscribe("work", handle, timeout=0.2, max_retries=0)
    await cluster.run_until_signal()

asyncio.run(main())
"""


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


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(120)  # seconds; it takes about 5
@pytest.mark.asyncio
async def test_a_worker_killed_in_a_retry_in_place_takes_the_count_of_them_along(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    app = f"crash-{uuid.uuid4().hex[:8]}"
    [cluster] = await cluster_factory(name=app, url=rabbitmq)
    published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=2)
    variables = {"CLUSTER_KIT_APP": app, "CLUSTER_KIT_EVENT_QUEUE__URL": rabbitmq}
    for redelivered in (False, True):
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FAILS_AND_HANGS),
            env={**os.environ, **variables},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert worker.stdout is not None
            async with asyncio.timeout(60):
                lines = [(await worker.stdout.readline()).decode() for _ in range(3)]
        finally:
            worker.kill()
            await worker.wait()
        assert lines == [f"{attempt} {redelivered}\n" for attempt in (1, 2, 3)]

    recorder = Recorder()
    cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=RetryPolicy(immediate=2))
    [run] = await recorder.finished()
    assert (run.delivery.id, run.delivery.attempt, run.delivery.redelivered) == (published, 1, True)
    assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(120)  # seconds; it takes about 5
@pytest.mark.asyncio
async def test_a_worker_killed_while_a_handler_is_stuck_leaves_one_dead_letter(
    cluster_factory: ClusterFactory, rabbitmq: str
) -> None:
    app = f"crash-{uuid.uuid4().hex[:8]}"
    [cluster] = await cluster_factory(name=app, url=rabbitmq)
    published = await cluster.event_queue.publish(CHANNEL, 1)
    variables = {
        "CLUSTER_KIT_APP": app,
        "CLUSTER_KIT_EVENT_QUEUE__URL": rabbitmq,
        "CLUSTER_KIT_EVENT_QUEUE__CANCEL_GRACE": "0.1",
    }
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IGNORES_ITS_CANCELLATION),
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            assert await worker.stdout.readline() == b"task.dead\n"
        await asyncio.sleep(0.5)  # what follows upon it is on its way
    finally:
        worker.kill()
        await worker.wait()

    recorder = Recorder()
    cluster.event_queue.subscribe(CHANNEL, recorder.handle)
    await cluster.event_queue.publish(CHANNEL, 2, message_id="next")
    await recorder.finished()
    [letter] = await cluster.event_queue.dead_letters(CHANNEL).browse()
    assert (letter.id, letter.reason, recorder.ids) == (published, DeadReason.FAILED, ["next"])
