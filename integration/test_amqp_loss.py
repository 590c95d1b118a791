from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from cluster_kit.errors import ConnectionLost, PublishUnconfirmed, TransportError
from cluster_kit.message import Envelope
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Bench, Taker, bench

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]


async def publish_all(made: Bench, tasks: list[Envelope], timeout: float = 30.0) -> list[str]:
    """Publish all at once; return the ids of those the adapter says are stored."""
    stored: list[str] = []

    async def publish(task: Envelope) -> None:
        with contextlib.suppress(PublishUnconfirmed):
            await made.adapter.publish(task, timeout=timeout)
            stored.append(task.id)

    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(publish(task))
    return stored


async def test_publishes_in_flight_survive_the_loss_of_the_connection(
    fault_proxy: FaultProxy,
) -> None:
    async with bench(fault_proxy.url) as made:
        tasks = [made.task(body=b"x" * 2000) for _ in range(400)]
        publishing = asyncio.create_task(publish_all(made, tasks), name="taker publishing")
        for _ in range(3):
            await asyncio.sleep(0.2)
            fault_proxy.cut()
        stored = await publishing
        taker = Taker(acks=True)
        await made.consume_when_possible(taker, prefetch=100)

        await eventually(lambda: set(taker.ids) >= set(stored))
        assert len(stored) == len(tasks)
        assert all(len(fields) == 3 for fields in made.heard("connection.lost"))
        await eventually(lambda: made.adapter.health().status == "ok")


async def test_a_copy_published_again_has_the_same_two_identities(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        await made.publish(made.task("other"))  # what it needs is declared before the fault
        task = made.task()
        await made.publish(made.task())
        fault_proxy.freeze("to_client")
        publishing = asyncio.create_task(made.publish(task), name="taker publishing")
        await asyncio.sleep(0.5)  # the broker has it, its answer is on the way
        fault_proxy.cut()
        fault_proxy.resume()
        await publishing
        taker = Taker(acks=True)
        await made.consume_when_possible(taker, prefetch=10)

        copies = await eventually(
            lambda: [r for r in taker.received if r.envelope.id == task.id],
            lambda found: len(found) == 2,
        )
        assert len({copy.copy_id for copy in copies}) == 1


async def test_sent_and_never_answered_is_unconfirmed(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        await made.publish(made.task())
        task = made.task()
        fault_proxy.freeze("to_client")
        with pytest.raises(PublishUnconfirmed) as caught:
            await made.adapter.publish(task, timeout=0.5)
        fault_proxy.resume()

        assert caught.value.message_id == task.id
        await made.publish(made.task())


async def test_never_sent_is_a_lost_connection(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        await made.publish(made.task())
        fault_proxy.refuse()
        await eventually(lambda: made.adapter.health().status == "down")
        began = time.monotonic()
        with pytest.raises(ConnectionLost):
            await made.adapter.publish(made.task(), timeout=0.5)
        assert time.monotonic() - began < 2
        with pytest.raises(ConnectionLost):
            await made.adapter.consume(made.queue(), prefetch=1, on_delivery=Taker())
        fault_proxy.resume()

        await eventually(lambda: made.adapter.health().status == "ok")
        await made.publish(made.task())


async def test_the_consumer_comes_back_and_old_deliveries_are_not_ours(
    fault_proxy: FaultProxy,
) -> None:
    async with bench(fault_proxy.url) as made:
        taker = Taker()
        await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
        await made.publish(*(made.task(headers={"n": n}) for n in range(3)))
        await eventually(lambda: len(taker.received) == 3)
        fault_proxy.cut()

        await eventually(lambda: len(taker.received) == 6)
        for old in taker.received[:3]:
            with pytest.raises(ConnectionLost):
                await old.ack()
        assert [r.envelope.headers["n"] for r in taker.received[3:]] == [0, 1, 2]
        assert [r.redeliveries for r in taker.received[3:]] == [1, 1, 1]
        assert [r.copy_id for r in taker.received[3:]] == [r.copy_id for r in taker.received[:3]]
        for new in taker.received[3:]:
            await new.ack()
        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert depth.ready == 0
        assert len(made.heard("consumer.started")) == 2
        assert len(made.heard("consumer.lost")) == 1


@pytest.mark.slow
async def test_a_peer_gone_silent_is_noticed_and_left(fault_proxy: FaultProxy) -> None:
    async with bench(f"{fault_proxy.url}?heartbeat=1&connect_timeout=2") as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
        await made.publish(made.task())
        fault_proxy.freeze()
        publishing = asyncio.create_task(made.publish(made.task()), name="taker publishing")
        await eventually(lambda: made.adapter.health().status == "down", timeout=30)
        assert not publishing.done()
        fault_proxy.resume()
        await publishing

        await eventually(lambda: len(taker.received) >= 2)
        await eventually(lambda: made.adapter.health().status == "ok")


async def test_a_cancelled_publish_is_cancelled(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        await made.publish(made.task())
        fault_proxy.freeze("to_client")
        publishing = asyncio.create_task(made.publish(made.task()), name="taker publishing")
        await asyncio.sleep(0.2)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        fault_proxy.resume()
        await made.publish(made.task())


async def test_pausing_works_without_a_connection(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        taker = Taker(acks=True)
        consumer = await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
        fault_proxy.refuse()
        await eventually(lambda: made.adapter.health().status == "down")
        await consumer.pause()
        fault_proxy.resume()
        await eventually(lambda: made.adapter.health().status == "ok")
        await made.publish(made.task())
        await asyncio.sleep(0.3)
        assert taker.received == []
        await consumer.resume()

        await eventually(lambda: len(taker.received) == 1)


async def test_closing_does_not_wait_for_a_broker_that_is_away(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        await made.adapter.consume(made.queue(), prefetch=3, on_delivery=Taker())
        fault_proxy.refuse()
        began = time.monotonic()
        await made.adapter.close()
        assert time.monotonic() - began < 5


async def test_closing_does_not_wait_long_for_a_silent_broker(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        taker = Taker()
        await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
        await made.publish(made.task())
        await eventually(lambda: len(taker.received) == 1)
        fault_proxy.freeze()
        began = time.monotonic()
        await made.adapter.close()
        assert time.monotonic() - began < 25


async def test_acknowledging_while_it_closes_harms_nobody(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        other = Taker(acks=True)
        await made.adapter.consume(made.queue("other"), prefetch=3, on_delivery=other)
        for _ in range(5):
            taker = Taker(acks=True)
            consumer = await made.adapter.consume(made.queue(), prefetch=200, on_delivery=taker)
            await publish_all(made, [made.task() for _ in range(200)])
            await consumer.close()
        await made.publish(made.task("other"))

        await eventually(lambda: len(other.received) == 1)
        assert made.heard("connection.lost") == []


@pytest.mark.broker_control
async def test_the_broker_closing_every_connection_loses_nothing(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=50, on_delivery=taker)
        tasks = [made.task() for _ in range(1500)]
        publishing = asyncio.create_task(publish_all(made, tasks), name="taker publishing")
        for _ in range(2):
            await asyncio.to_thread(rabbitmq_server.close_connections, rabbitmq)
        stored = await publishing

        await eventually(lambda: set(taker.ids) >= set(stored))
        assert len(stored) == len(tasks)
        reasons = [str(fields["reason"]) for fields in made.heard("connection.lost")]
        assert reasons
        assert all("CONNECTION_FORCED" in reason for reason in reasons)


@pytest.mark.own_broker
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_it_outlives_a_restart_of_the_broker(
    own_rabbitmq: str, own_rabbitmq_server: RabbitServer
) -> None:
    async with bench(own_rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=5, on_delivery=taker)
        await made.publish(made.task())
        late = made.task()
        await made.publish(late, delay=3.0)
        await asyncio.to_thread(own_rabbitmq_server.stop)
        try:
            with pytest.raises(TransportError):
                await made.adapter.publish(made.task(), timeout=0.5)
        finally:
            await asyncio.to_thread(own_rabbitmq_server.start)
        task = made.task()
        await made.adapter.publish(task, timeout=60.0)

        await eventually(lambda: {task.id, late.id} <= set(taker.ids), timeout=60)
        await eventually(lambda: made.adapter.health().status == "ok")
