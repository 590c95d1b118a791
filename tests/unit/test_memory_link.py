from __future__ import annotations

import asyncio

import pytest

from cluster_kit.errors import ConnectionLost, TransportError
from tests.unit.memory_bench import QUEUE, Instance, fresh_url, joined, let_run, task

pytestmark = pytest.mark.asyncio


async def test_a_broken_link_loses_what_is_in_hand_to_the_others() -> None:
    url = fresh_url()
    async with joined(url) as one, joined(url) as two:
        inbox = await one.consume()
        await one.publish("1", "2")
        await inbox.holds("1", "2")
        one.adapter.disconnect()
        one.adapter.disconnect()

        other = await two.consume()
        await other.holds("1", "2")
        assert [received.redeliveries for received in other.received] == [1, 1]
        with pytest.raises(ConnectionLost):
            await inbox.received[0].ack()
        with pytest.raises(ConnectionLost):
            await inbox.received[1].give_back()


async def test_a_consumer_resumes_when_the_link_is_back() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        await one.publish("1")
        await inbox.holds("1")
        one.adapter.disconnect()
        await let_run()
        assert inbox.ids == ["1"]

        one.adapter.reconnect()
        await inbox.holds("1", "1")
        assert inbox.received[0].copy_id == inbox.received[1].copy_id
        await inbox.received[1].ack()


async def test_pausing_and_resuming_are_legal_while_the_link_is_broken() -> None:
    async with joined(fresh_url()) as one:
        inbox, paused = await one.consume(), await one.consume()
        one.adapter.disconnect()
        await paused.consumer.pause()
        await inbox.consumer.pause()
        await inbox.consumer.resume()
        one.adapter.reconnect()
        await one.publish("1", "2")

        await inbox.holds("1", "2")
        assert paused.ids == []


async def test_a_consumer_closed_while_the_link_was_broken_stays_closed() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        one.adapter.disconnect()
        await inbox.consumer.close()
        one.adapter.reconnect()
        await one.publish("1")
        await inbox.consumer.resume()
        await let_run()

        assert inbox.ids == []
        assert await one.ready() == 1


async def test_publishing_waits_for_the_link() -> None:
    async with joined(fresh_url()) as one:
        one.adapter.disconnect()
        publishing = asyncio.create_task(one.adapter.publish(task("1"), timeout=20))
        await let_run()
        assert not publishing.done()
        one.adapter.reconnect()
        await publishing

        assert await one.ready() == 1


async def test_publishing_gives_up_at_its_timeout() -> None:
    async with joined(fresh_url()) as one:
        one.adapter.disconnect()
        with pytest.raises(ConnectionLost, match=r"0\.05 s"):
            await one.adapter.publish(task("1"), timeout=0.05)
        with pytest.raises(ConnectionLost):
            await one.adapter.bury(task("1"), timeout=0.05)
        one.adapter.reconnect()

        assert await one.adapter.depth(QUEUE) is None


async def test_closing_ends_a_publish_that_waits() -> None:
    async with joined(fresh_url()) as one:
        one.adapter.disconnect()
        publishing = asyncio.create_task(one.adapter.publish(task("1"), timeout=20))
        await let_run()
        await one.adapter.close()

        with pytest.raises(ConnectionLost):
            await publishing


async def test_without_a_link_everything_else_says_so_at_once() -> None:
    async with joined(fresh_url()) as one:
        one.adapter.disconnect()
        with pytest.raises(TransportError):
            await one.consume()
        with pytest.raises(TransportError):
            await one.adapter.depth(QUEUE)
        with pytest.raises(TransportError):
            await one.adapter.purge(QUEUE)
        with pytest.raises(TransportError):
            await one.adapter.channels()
        with pytest.raises(TransportError):
            await one.dead()


async def test_health_and_events_tell_of_the_link() -> None:
    one = Instance(fresh_url(), app="shop", clock=None, crash_limit=10)
    assert one.adapter.health().status == "down"
    await one.adapter.connect()
    await one.consume()
    assert one.adapter.health().status == "ok"
    one.adapter.disconnect("cable pulled")
    assert one.adapter.health().status == "down"
    one.adapter.reconnect()
    await one.adapter.close()
    assert one.adapter.health().status == "down"

    assert [name for name, _ in one.events] == [
        "connection.up",
        "consumer.started",
        "connection.lost",
        "consumer.lost",
        "connection.up",
        "consumer.started",
    ]
    assert one.events[2][1]["reason"] == "cable pulled"


async def test_connect_and_close_are_idempotent_and_may_be_repeated() -> None:
    one = Instance(fresh_url(), app="shop", clock=None, crash_limit=10)
    await one.adapter.close()
    with pytest.raises(ConnectionLost):
        await one.adapter.publish(task("1"), timeout=5)
    for _ in range(3):
        await one.adapter.connect()
        await one.adapter.connect()
        await one.publish("1")
        assert await one.ready() == 1
        await one.adapter.close()
        await one.adapter.close()
    with pytest.raises(ConnectionLost):
        one.adapter.reconnect()
