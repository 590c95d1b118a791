from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiormq
import pytest
from pamqp import body, commands, header

from cluster_kit.message import DeadReason, Envelope
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Bench, Taker, bench, publish_raw, raw_channel

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]


async def dead_letters(made: Bench) -> list[Envelope]:
    async with made.adapter.read_dead(made.queue()) as entries:
        return [entry.envelope async for entry in entries]


def returns_are_counted(server: RabbitServer) -> bool:
    return tuple(int(part) for part in server.version.split(".")[:2]) < (4, 3)


# --- taking and settling -------------------------------------------------------------------------


async def test_prefetch_is_a_hard_bound_even_over_a_pause(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker()
        consumer = await made.adapter.consume(made.queue(), prefetch=4, on_delivery=taker)
        await made.publish(*(made.task(headers={"n": n}) for n in range(20)))
        await eventually(lambda: len(taker.received) == 4)
        settled = 0
        for _ in range(3):
            await consumer.pause()
            await taker.received[settled].ack()
            settled += 1
            await consumer.resume()
            await eventually(lambda: len(taker.received) == 4 + settled)  # noqa: B023
        await asyncio.sleep(0.3)
        assert len(taker.received) == 4 + settled
        while settled < 20:
            await taker.received[settled].ack()
            settled += 1
            await eventually(lambda: len(taker.received) >= min(20, 4 + settled))  # noqa: B023
            assert len(taker.received) <= 4 + settled

        assert [r.envelope.headers["n"] for r in taker.received] == list(range(20))


async def test_nothing_comes_while_paused_and_what_was_taken_stays(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker()
        consumer = await made.adapter.consume(made.queue(), prefetch=2, on_delivery=taker)
        await made.publish(made.task())
        await eventually(lambda: len(taker.received) == 1)
        await consumer.pause()
        await consumer.pause()
        await made.publish(made.task())
        await asyncio.sleep(0.3)
        assert len(taker.received) == 1
        await taker.received[0].ack()
        await consumer.resume()
        await consumer.resume()

        await eventually(lambda: len(taker.received) == 2)
        assert taker.received[1].redeliveries == 0


async def test_a_consumer_may_start_paused(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.publish(made.task())
        consumer = await made.adapter.consume(
            made.queue(), prefetch=2, on_delivery=taker, paused=True
        )
        await asyncio.sleep(0.3)
        assert taker.received == []
        await consumer.resume()

        await eventually(lambda: len(taker.received) == 1)


async def test_what_is_given_back_is_first_in_line_for_anyone(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    async with bench(rabbitmq) as made:
        counted = returns_are_counted(rabbitmq_server)
        taker, other = Taker(), Taker()
        consumer = await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
        await made.publish(*(made.task(headers={"n": n}) for n in range(6)))
        await eventually(lambda: len(taker.received) == 3)
        await consumer.pause()
        for received in taker.received:
            assert received.give_back_counts is counted
            await received.give_back()
        await made.adapter.consume(made.queue(), prefetch=6, on_delivery=other)

        await eventually(lambda: len(other.received) == 6)
        assert [r.envelope.headers["n"] for r in other.received] == list(range(6))
        assert [r.redeliveries for r in other.received] == [int(counted)] * 3 + [0] * 3


async def test_closing_returns_what_is_unsettled_in_order(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    async with bench(rabbitmq) as made:
        taker, other = Taker(), Taker()
        consumer = await made.adapter.consume(made.queue(), prefetch=5, on_delivery=taker)
        await made.publish(*(made.task(headers={"n": n}) for n in range(8)))
        await eventually(lambda: len(taker.received) == 5)
        await taker.received[2].ack()
        await eventually(lambda: len(taker.received) == 6)
        await consumer.close()
        await consumer.close()
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=other)

        await eventually(lambda: len(other.received) >= 7)
        assert [r.envelope.headers["n"] for r in other.received] == [0, 1, 3, 4, 5, 6, 7]
        counted = int(returns_are_counted(rabbitmq_server))
        assert [r.redeliveries for r in other.received] == [counted] * 5 + [0] * 2


async def crash_with_one(url: str, queue: str) -> bool:
    """Take a message and vanish, as a worker that is killed; False when there was none."""
    async with raw_channel(url) as channel:
        got = await channel.basic_get(queue)
        return got.delivery_tag is not None


async def test_deliveries_without_outcome_are_counted_and_end_in_the_dead_letters(
    rabbitmq: str,
) -> None:
    async with bench(rabbitmq) as made:
        name, taker = made.queue().full, Taker()
        await made.publish(made.task())
        for _ in range(3):
            assert await crash_with_one(rabbitmq, name)
        consumer = await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        await eventually(lambda: len(taker.received) == 1)
        assert taker.received[0].redeliveries == 3
        await consumer.close()
        crashes = 0
        while await crash_with_one(rabbitmq, name):
            crashes += 1
            assert crashes < 25
        await eventually(
            lambda: made.adapter.depth(made.queue()), lambda depth: depth and depth.dead == 1
        )

        (envelope,) = await dead_letters(made)
        assert envelope.death is not None
        assert envelope.death.reason is DeadReason.CRASHED


# --- dead letters --------------------------------------------------------------------------------


async def test_browsing_again_and_again_keeps_dead_letters_and_their_order(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        tasks = [made.task(headers={"n": n}) for n in range(10)]
        for task in tasks:
            await made.adapter.bury(made.dead(task), timeout=10.0)
        for _ in range(25):  # more often than a work queue would allow
            async with made.adapter.read_dead(made.queue()) as entries:
                seen = []
                async for entry in entries:
                    seen.append(entry.envelope.headers["n"])
                    if len(seen) == 4:
                        break
            assert seen == [0, 1, 2, 3]
        async with made.adapter.read_dead(made.queue()) as entries:
            async for entry in entries:
                if entry.envelope.headers["n"] in {1, 5}:
                    await entry.remove()
                    await entry.remove()

        left = await dead_letters(made)
        assert [envelope.headers["n"] for envelope in left] == [0, 2, 3, 4, 6, 7, 8, 9]


async def test_dead_letters_buried_while_reading_wait_for_the_next_time(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        assert await dead_letters(made) == []
        await made.adapter.bury(made.dead(made.task()), timeout=10.0)
        async with made.adapter.read_dead(made.queue()) as entries:
            seen = 0
            async for _ in entries:
                seen += 1
                await made.adapter.bury(made.dead(made.task()), timeout=10.0)
        assert seen == 1
        assert len(await dead_letters(made)) == 2


async def test_a_dead_letter_says_how_it_died(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        task = made.task(attempt=4, headers={"tenant": "x"})
        dead = made.dead(task, DeadReason.REJECTED)
        await made.adapter.bury(dead, timeout=10.0)
        (read,) = await dead_letters(made)

        assert read.death is not None
        assert dead.death is not None
        assert read.death.reason is DeadReason.REJECTED
        assert read.death.died_at == pytest.approx(dead.death.died_at, abs=0.001)
        assert (read.id, read.attempt, read.headers) == (task.id, 4, {"tenant": "x"})


async def test_a_task_that_died_after_waiting_says_why_it_died_not_that_it_waited(
    rabbitmq: str,
) -> None:
    async with bench(rabbitmq) as made:
        await made.publish(made.task(), delay=0.5)
        async with raw_channel(rabbitmq) as channel:
            got = await eventually(
                lambda: channel.basic_get(made.queue().full),
                lambda got: got.delivery_tag is not None,
            )
            await channel.basic_reject(got.delivery_tag, requeue=False)
        await eventually(
            lambda: made.adapter.depth(made.queue()), lambda depth: depth and depth.dead == 1
        )
        (read,) = await dead_letters(made)
        assert read.death is not None
        assert read.death.reason is DeadReason.REJECTED


# --- foreign publishers --------------------------------------------------------------------------


async def test_plain_messages_of_other_programs_are_tasks(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=taker)
        await publish_raw(rabbitmq, f"{made.app}.tasks", "mails", b'{"by": "exchange"}')
        await publish_raw(rabbitmq, "", made.queue().full, b"\x00 no json", message_id="theirs")
        await eventually(lambda: len(taker.received) == 2)

        first, second = (received.envelope for received in taker.received)
        assert first.body == b'{"by": "exchange"}'
        assert (first.content_type, first.attempt, first.max_retries) == (None, 1, None)
        assert len(first.id) == 32
        assert (second.id, second.body) == ("theirs", b"\x00 no json")
        assert taker.received[1].copy_id == "theirs"


async def test_junk_in_headers_and_properties_is_made_sense_of_and_travels_on(
    rabbitmq: str,
) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker()
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=taker)
        headers = {
            "ck-id": ["no", "text"],
            "ck-attempt": -3,
            "ck-max-retries": "many",
            "ck-timeout-ms": 2**40,
            "ck-expires-at": True,
            "x-delivery-count": 99,
            "x-death": "nonsense",
            "bytes": bytearray(b"\xff\xfe"),
            "float": 1.1,
            "decimal": Decimal("1.5"),
            "time": datetime(2020, 1, 1, tzinfo=UTC),
            "nested": {"list": [1, {"deep": None}]},
        }
        await publish_raw(
            rabbitmq,
            f"{made.app}.tasks",
            "mails",
            headers=headers,
            message_id="has space",
            content_type="",
            priority=3,
            correlation_id="c",
            timestamp=datetime(2020, 1, 1, tzinfo=UTC),
        )
        await eventually(lambda: len(taker.received) == 1)
        received = taker.received[0]

        assert received.redeliveries == 0
        assert received.envelope.attempt == 1
        assert received.envelope.max_retries is received.envelope.timeout is None
        assert received.envelope.expires_at is None
        assert received.envelope.published_at == 1_577_836_800.0
        assert set(received.envelope.headers) == {"bytes", "float", "decimal", "time", "nested"}
        # A retry of it, and a dead letter, must be possible all the same.
        await made.publish(received.envelope)
        await made.adapter.bury(made.dead(received.envelope), timeout=10.0)
        await received.ack()
        await eventually(lambda: len(taker.received) == 2)
        assert set(taker.received[1].envelope.headers) == set(received.envelope.headers)
        assert taker.received[1].envelope.headers["nested"] == headers["nested"]


class _BrokenProperties(commands.Basic.Properties):
    """Properties that no decoder takes: a message id that is not UTF-8, a time beyond all time."""

    def marshal(self) -> bytes:
        flags = (1 << 7) | (1 << 6)  # message_id, timestamp
        return flags.to_bytes(2, "big") + b"\x02\xff\xfe" + (2**63 - 1).to_bytes(8, "big")


async def test_properties_that_cannot_be_decoded_do_not_end_the_connection(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=taker)
        async with raw_channel(rabbitmq) as channel:
            frames: list[Any] = [
                commands.Basic.Publish(exchange="", routing_key=made.queue().full),
                header.ContentHeader(body_size=5, properties=_BrokenProperties()),
                body.ContentBody(b"12345"),
            ]
            await channel.write_queue.put(
                aiormq.abc.ChannelFrame.marshall(channel_number=channel.number, frames=frames)
            )
            await eventually(lambda: len(taker.received) == 1)
        await made.publish(made.task())
        await eventually(lambda: len(taker.received) == 2)

        assert taker.received[0].envelope.body == b"12345"
        assert made.heard("connection.lost") == []
