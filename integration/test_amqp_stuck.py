"""Delayed tasks whose queue takes nothing hold up those of their own application alone.

The broker hands on at most 32 such tasks of one wait queue, and tries again after three minutes.
"""

from __future__ import annotations

import asyncio

import aiormq.exceptions
import pytest

from cluster_kit.errors import PublishRefused
from cluster_kit.names import QueueName, new_id
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.tasks.delays import wait_for
from cluster_kit_amqp.topology import Queue
from integration.amqp_bench import Bench, Taker, bench, raw_channel

pytestmark = pytest.mark.asyncio

LADDERED, CHAINED = 0.5, 0.9
STUCK = 40  # of each; more than the broker hands on


async def fill(made: Bench, queue: QueueName, server: RabbitServer, vhost: str) -> None:
    """Make the queue take nothing more."""
    limit = ("full", f"^{queue.full}$", '{"max-length": 1}', "--apply-to", "queues")
    await asyncio.to_thread(server.ctl, "set_policy", "-p", vhost, *limit)
    with pytest.raises(PublishRefused):
        await made.publish(*(made.task(queue=queue) for _ in range(10)))


async def all_due(url: str, app: str) -> None:
    """Wait until no message waits for its time any more, wherever it has got stuck then."""
    ladder, chain = (wait_for(app, QueueName(app, "x"), delay) for delay in (LADDERED, CHAINED))
    steps = [step for section in (*ladder.needs, *chain.needs) for step in section.steps]
    names = [step.name for step in steps if isinstance(step, Queue)]

    async def ready() -> int:
        async with raw_channel(url) as channel:
            answers = [await channel.queue_declare(name, passive=True) for name in names]
            return sum(answer.message_count for answer in answers)

    await eventually(ready, lambda count: count == 0)


async def stick(made: Bench, queue: QueueName, url: str) -> None:
    """Let more tasks come due for a queue that takes none than the broker hands on."""
    for delay in (LADDERED, CHAINED):  # where they wait is made before: it takes some of the delay
        await made.publish(made.task("other"), delay=delay)
    tasks = ((made.task(queue=queue), d) for _ in range(STUCK) for d in (LADDERED, CHAINED))
    async with asyncio.TaskGroup() as group:
        for task, delay in tasks:
            group.create_task(made.publish(task, delay=delay))
    await all_due(url, made.app)


async def delays_pass(made: Bench, queue: QueueName, taker: Taker) -> None:
    """See that tasks come, along the ladder and along the chain."""
    tasks = [made.task(queue=queue) for _ in range(2)]
    for task, delay in zip(tasks, (LADDERED, CHAINED), strict=True):
        await made.publish(task, delay=delay)
    await eventually(lambda: {task.id for task in tasks} <= set(taker.ids))


@pytest.mark.broker_control
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_a_full_queue_holds_up_no_other_application(
    rabbitmq: str, rabbitmq_server: RabbitServer, shared: bool
) -> None:
    async with bench(rabbitmq) as first, bench(rabbitmq) as second:
        full = QueueName(None if shared else first.app, f"full-{new_id()[:8]}")
        await first.publish(first.task(queue=full))
        await fill(first, full, rabbitmq_server, rabbitmq.rpartition("/")[2])
        await stick(first, full, rabbitmq)
        taker = Taker(acks=True)
        await second.adapter.consume(second.queue(), prefetch=9, on_delivery=taker)

        await delays_pass(second, second.queue(), taker)


async def test_a_deleted_queue_holds_up_no_other_publisher_to_a_shared_one(rabbitmq: str) -> None:
    shared = QueueName(None, f"shared-{new_id()[:8]}")
    async with bench(rabbitmq) as first, bench(rabbitmq) as second, raw_channel(rabbitmq) as raw:
        taker = Taker(acks=True)
        await second.adapter.consume(shared, prefetch=9, on_delivery=taker)
        await delays_pass(first, shared, taker)
        await first.publish(first.task())
        await raw.queue_delete(first.queue().full)
        await stick(first, first.queue(), rabbitmq)
        with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
            await raw.queue_declare(first.queue().full, passive=True)  # nobody made it anew

        await delays_pass(second, shared, taker)
