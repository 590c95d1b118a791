"""Scenarios: what is stored with a transaction, and what comes out."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from cluster_kit.clock import SystemClock
from cluster_kit.testing.contracts.outbox.base import CHANNEL, EACH_KIND, Scenarios
from cluster_kit.testing.contracts.outbox.bench import publish
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.outbox.bench import Bench, Kind


class _Wrong(Exception):  # noqa: N818 - a test's own
    pass


@pytest.mark.asyncio
class PublishingScenarios(Scenarios):
    """Committed is sent, rolled back is not."""

    @EACH_KIND
    async def test_a_task_is_sent_when_its_transaction_is_committed(
        self, bench: Bench, kind: Kind
    ) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        async with bench.transaction(kind) as transaction:
            id_ = await publish(instance.outbox, transaction, CHANNEL, {"order": 1})
            assert (await instance.outbox.stats()).pending == 0
            assert recorder.runs == []

        [run] = await recorder.finished()
        assert (run.payload, run.delivery.id) == ({"order": 1}, id_)
        await eventually(instance.outbox.stats, lambda stats: stats.pending == 0)

    @EACH_KIND
    async def test_what_is_rolled_back_is_not_sent(self, bench: Bench, kind: Kind) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        with contextlib.suppress(_Wrong):
            async with bench.transaction(kind) as transaction:
                await publish(instance.outbox, transaction, CHANNEL, "never")
                raise _Wrong
        async with bench.transaction(kind) as transaction:
            await publish(instance.outbox, transaction, CHANNEL, "then")

        await recorder.finished()
        assert recorder.payloads == ["then"]

    @pytest.mark.parametrize("kind", ["async_session", "async_connection"])
    async def test_a_savepoint_takes_along_only_what_is_inside_it(
        self, bench: Bench, kind: Kind
    ) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        async with bench.transaction(kind) as transaction:
            assert isinstance(transaction, AsyncSession | AsyncConnection)
            await instance.outbox.publish(transaction, CHANNEL, 1)
            inner = await transaction.begin_nested()
            await instance.outbox.publish(transaction, CHANNEL, 2)
            await inner.rollback()
            await instance.outbox.publish(transaction, CHANNEL, 3)

        await recorder.finished(2)
        assert recorder.payloads == [1, 3]

    async def test_the_options_of_a_task_travel(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        async with bench.transaction("async_session") as transaction:
            id_ = await publish(
                instance.outbox,
                transaction,
                CHANNEL,
                None,
                message_id="order-17",
                max_retries=7,
                timeout=33,
                headers={"tenant": "a", "n": 2**40, "none": None},
                delay=0.3,
            )

        assert id_ == "order-17"
        [run] = await recorder.finished()
        delivery = run.delivery
        assert (delivery.id, delivery.max_retries) == (id_, 7)
        assert delivery.headers == {"tenant": "a", "n": 2**40, "none": None}
        assert delivery.published_at is not None
        waited = delivery.deadline.timestamp() - 33 - delivery.published_at.timestamp()
        assert waited > 0.25

    async def test_the_time_to_live_counts_from_the_call(self, bench: Bench) -> None:
        recorder = Recorder()
        writer = await bench.instance(relay=False)
        async with bench.transaction("async_session") as transaction:
            await publish(writer.outbox, transaction, CHANNEL, 1, ttl=0.05, delay=0.05)
            id_ = await publish(writer.outbox, transaction, CHANNEL, 2)
        over = SystemClock().wall() + 0.15
        await eventually(lambda: SystemClock().wall() > over)

        late = await bench.instance(start=False)
        late.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await late.cluster.start()

        await recorder.finished()
        assert recorder.ids == [id_]
        letters = late.cluster.event_queue.dead_letters(CHANNEL)
        [letter] = await eventually(letters.browse)
        assert (letter.payload, letter.reason) == (1, "expired")

    async def test_many_tasks_keep_their_order(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        async with bench.transaction("async_connection") as transaction:
            assert isinstance(transaction, AsyncConnection)
            ids = await instance.outbox.publish_many(transaction, CHANNEL, range(250))
            assert await instance.outbox.publish_many(transaction, CHANNEL, []) == []

        await recorder.finished(250)
        assert recorder.payloads == list(range(250))
        assert recorder.ids == ids

    async def test_a_sync_message_is_its_publishers_whoever_sends_it(self, bench: Bench) -> None:
        writer = await bench.instance(relay=False)
        others = [await bench.instance() for _ in range(2)]
        hearers = [Hearer() for _ in range(3)]
        for instance, hearer in zip([writer, *others], hearers, strict=True):
            await instance.cluster.sync_messages.subscribe("sources", hearer.handle)

        async with AsyncSession(bench.engine) as session, session.begin():
            first = await writer.outbox.send_sync_message(session, "sources", {"added": 1})
            await writer.outbox.send_sync_message(session, "sources", "all", skip_self=False)
            await writer.outbox.send_sync_message(session, "sources", "own", only_self=True)

        for hearer in hearers[1:]:
            await eventually(partial(len, hearer.heard), lambda n: n == 2)
            assert [heard.message for heard in hearer.heard] == [{"added": 1}, "all"]
            event = hearer.heard[0].event
            assert (event.id, event.origin) == (first, writer.cluster.instance_id)
        await eventually(partial(len, hearers[0].heard), lambda n: n == 2)
        assert [heard.message for heard in hearers[0].heard] == ["all", "own"]
        assert [hearer.gaps for hearer in hearers] == [[], [], []]

    async def test_messages_of_pubsub_are_broadcast(self, bench: Bench) -> None:
        sender, other = [await bench.instance() for _ in range(2)]
        hearer = Hearer()
        await other.cluster.pubsub.subscribe("orders.*", hearer.handle)

        async with AsyncSession(bench.engine) as session, session.begin():
            await sender.outbox.broadcast(session, CHANNEL, [1])
        await bench.run(
            lambda connection: sender.outbox.blocking.broadcast(connection, CHANNEL, [2])
        )

        await eventually(partial(len, hearer.heard), lambda n: n == 2)
        assert [heard.message for heard in hearer.heard] == [[1], [2]]

    async def test_an_instance_that_does_not_run_can_publish(self, bench: Bench) -> None:
        recorder = Recorder()
        passing = await bench.instance(start=False)
        async with bench.transaction("async_session") as transaction:
            id_ = await publish(passing.outbox, transaction, CHANNEL, 1)
        assert (await passing.outbox.stats()).pending == 1

        running = await bench.instance()
        running.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished()
        assert recorder.ids == [id_]
