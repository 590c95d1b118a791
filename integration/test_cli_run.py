from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_kit.cluster import Cluster
from tests.cli.support import Broker, Program, eventually

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]

COUNT = 60
APPLICATION = """
from __future__ import annotations

import asyncio
import os

from cluster_kit import Cluster, Delivery, Plugin


def say(*words: object) -> None:
    # In one piece: several processes write to one output.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


class Shop(Plugin):
    name = "shop"

    async def load(self) -> None:
        self.cluster.event_queue.subscribe("work", self.work, concurrency=2)

    async def after_start(self) -> None:
        say("serving", os.getpid())

    async def work(self, payload: int, delivery: Delivery) -> None:
        say("run", delivery.id, os.getpid())
        await asyncio.sleep(0.1)
        say("done", delivery.id, os.getpid())


cluster = Cluster(plugins=[Shop])
"""


@pytest.fixture
def pool(rabbitmq: str, tmp_path: Path) -> Iterator[Program]:
    (tmp_path / "shop.py").write_text(APPLICATION)
    folder = tmp_path / "pool"
    folder.mkdir()
    arguments = ("run", "shop:cluster", "--workers", "3", "--app", "shop", "--url", rabbitmq)
    started = Program(folder, *arguments, env={})
    yield started
    started.end()


def seen(pool: Program, event: str) -> list[tuple[str, int]]:
    words = [line.split() for line in pool.out.splitlines()]
    return [(line[1], int(line[2])) for line in words if len(line) == 3 and line[0] == event]


async def publish(cluster: Cluster) -> None:
    await cluster.event_queue.publish_many("work", range(COUNT))


def test_a_pool_loses_no_task_when_a_worker_is_killed_and_the_rest_drains(
    pool: Program, rabbitmq: str
) -> None:
    broker = Broker(rabbitmq)
    pool.until("serving", times=3)

    broker.work(publish)
    eventually(lambda: len(seen(pool, "done")) > 5)
    victim = seen(pool, "run")[-1][1]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len({task for task, _ in seen(pool, "done")}) == COUNT)
    pool.send(signal.SIGTERM)

    assert pool.wait() == 0
    runs = [task for task, _ in seen(pool, "run")]
    doubled = {task for task in runs if runs.count(task) > 1}
    assert doubled <= {task for task, pid in seen(pool, "run") if pid == victim}
    assert len({pid for _, pid in seen(pool, "run")}) >= 3
    assert f"(process {victim}) ended by SIGKILL" in pool.err


def test_a_drained_pool_leaves_its_rest_to_others(pool: Program, rabbitmq: str) -> None:
    broker = Broker(rabbitmq)
    pool.until("serving", times=3)

    broker.work(publish)
    eventually(lambda: len(seen(pool, "done")) > 5)
    pool.send(signal.SIGTERM)

    assert pool.wait() == 0
    runs, done = seen(pool, "run"), seen(pool, "done")
    assert sorted(runs) == sorted(done)
    assert len(done) < COUNT

    def left() -> tuple[int, int]:
        (queue,) = broker.command("queues", "--json").json
        return queue["ready"], queue["dead"]

    eventually(lambda: left() == (COUNT - len(done), 0))
