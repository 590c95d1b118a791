from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from cluster_kit import Cluster, Reject, Settings
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]

LETTERS, BODY_BYTES = 50, 256 * 1024


async def refuse(payload: str) -> None:
    raise Reject("kept")


async def test_an_iteration_holds_no_bodies_and_gives_all_back_in_order(rabbitmq: str) -> None:
    async with Cluster("shop", settings=Settings(amqp_url=rabbitmq)) as cluster:
        cluster.event_queue.subscribe("large", refuse)
        text = "x" * BODY_BYTES
        ids = [await cluster.event_queue.publish("large", text) for _ in range(LETTERS)]
        letters = cluster.event_queue.dead_letters("large")
        await eventually(letters.count, lambda count: count == LETTERS)

        tracemalloc.start()
        try:
            seen = [(letter.id, len(letter.body)) async for letter in letters]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert seen == [(id_, BODY_BYTES + 2) for id_ in ids]
        assert peak < LETTERS * BODY_BYTES / 3
        assert [letter.id async for letter in letters] == ids


@pytest.mark.broker_control
async def test_they_are_read_where_no_queue_can_be_made_any_more(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    vhost = rabbitmq.rpartition("/")[2]
    async with Cluster("shop", settings=Settings(amqp_url=rabbitmq)) as cluster:
        cluster.event_queue.subscribe("full", refuse)
        published = await cluster.event_queue.publish("full", 1)
        letters = cluster.event_queue.dead_letters("full")
        await eventually(letters.count)
        limit = ("set_vhost_limits", "-p", vhost, '{"max-queues": 1}')
        await asyncio.to_thread(rabbitmq_server.ctl, *limit)

        assert [letter.id for letter in await letters.browse()] == [published]
        assert await letters.discard() == 1
