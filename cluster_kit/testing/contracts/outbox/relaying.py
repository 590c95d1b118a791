"""Scenarios: several relays, their starts and stops, and a database that is away."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from cluster_kit.testing.contracts.outbox.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.outbox.bench import publish
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.contracts.outbox.bench import Bench, Instance


def status(instance: Instance) -> tuple[str, str]:
    """Return what `instance` says of its outbox."""
    shown = instance.cluster.health()["adapters"]["outbox"]
    return shown["status"], shown["detail"]


@pytest.mark.asyncio
class RelayingScenarios(Scenarios):
    """Whoever relays, nothing is lost, and the messages of a key stay in order."""

    async def test_several_relays_keep_the_order_of_each_key(self, bench: Bench) -> None:
        recorder = Recorder()
        instances = [await bench.instance(batch_size=7) for _ in range(3)]
        instances[0].cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        for number in range(20):
            async with AsyncSession(bench.engine) as session, session.begin():
                for key in ("a", "b", "c", "d", "e", "f"):
                    await instances[number % 3].outbox.publish(
                        session, CHANNEL, [key, number], key=key
                    )

        await recorder.finished(120)
        seen: defaultdict[str, list[int]] = defaultdict(list)
        payloads: list[Any] = recorder.payloads
        for key, number in payloads:
            seen[key].append(number)
        assert dict(seen) == {key: list(range(20)) for key in "abcdef"}
        assert sum(len(instance.faults.tried) for instance in instances) == 120

    async def test_what_was_stored_while_nobody_relayed_is_sent(self, bench: Bench) -> None:
        recorder = Recorder()
        writer = await bench.instance(relay=False)
        for number in range(3):
            async with AsyncSession(bench.engine) as session, session.begin():
                await writer.outbox.publish(session, CHANNEL, number)
        stats = await writer.outbox.stats()
        assert (stats.pending, stats.sent, stats.lag) == (3, 0, None)
        assert stats.oldest is not None
        assert status(writer) == ("ok", "no relay here")

        relaying = await bench.instance()
        relaying.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished(3)
        assert recorder.payloads == [0, 1, 2]
        stats = await eventually(relaying.outbox.stats, lambda found: found.pending == 0)
        assert (stats.sent, stats.oldest) == (3, None)
        assert stats.lag is not None
        assert len(bench.reports("outbox.sent")) == 3

    @pytest.mark.needs("tells")
    async def test_a_relay_hears_of_what_other_processes_store(self, bench: Bench) -> None:
        recorder = Recorder()
        writer = await bench.instance(relay=False)
        relaying = await bench.instance(poll_interval=3600)
        relaying.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        for number in range(1, 4):
            async with AsyncSession(bench.engine) as session, session.begin():
                await writer.outbox.publish(session, CHANNEL, number)
            await recorder.finished(number)

    @pytest.mark.needs("tells")
    async def test_others_are_told_once_for_a_transaction_and_again_after_a_rollback(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        writer = await bench.instance(relay=False)
        relaying = await bench.instance(poll_interval=3600)
        relaying.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        told: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            told.extend(["told"] if "pg_notify" in statement else [])

        event.listen(bench.engine.sync_engine, "before_cursor_execute", note)
        async with bench.engine.connect() as connection:
            await writer.outbox.publish(connection, CHANNEL, "never")
            await connection.rollback()
            inner = await connection.begin_nested()
            await writer.outbox.publish(connection, CHANNEL, "never")
            await inner.rollback()
            for number in range(5):
                await writer.outbox.publish(connection, CHANNEL, number)
            await connection.commit()

        await recorder.finished(5)
        assert recorder.payloads == list(range(5))
        assert len(told) == 3  # in what was rolled back, in the savepoint, and then once

    @pytest.mark.needs("two_phase")
    @pytest.mark.parametrize("relay", [True, False])
    async def test_a_prepared_transaction_takes_its_messages_along(
        self, bench: Bench, *, relay: bool
    ) -> None:
        recorder = Recorder()
        writer = await bench.instance(relay=relay)
        relaying = await bench.instance()
        relaying.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        def work() -> None:
            for number, ending in enumerate(("rollback", "commit")):
                with bench.blocking.connect() as connection:
                    transaction = connection.begin_twophase()
                    writer.outbox.blocking.publish(connection, CHANNEL, number)
                    transaction.prepare()
                    getattr(transaction, ending)()

        await asyncio.to_thread(work)

        await recorder.finished(1)
        assert recorder.payloads == [1]

    @pytest.mark.parametrize("size", [1, 3])
    async def test_a_batch_has_no_more_messages_than_it_may(self, bench: Bench, size: int) -> None:
        writer = await bench.instance(relay=False)
        async with bench.transaction("async_session") as transaction:
            for number in range(30):
                await publish(writer.outbox, transaction, CHANNEL, number, key=f"key-{number}")
        relaying = await bench.instance(start=False, batch_size=size)
        relaying.faults.slowness = 3600.0

        await relaying.cluster.start()
        await eventually(lambda: relaying.faults.tried)
        await relaying.cluster.stop(timeout=0)

        assert 0 < len(relaying.faults.tried) <= size

    async def test_a_relay_hears_of_what_its_own_process_stores(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await bench.instance(poll_interval=3600, listen=False)
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        for number in range(1, 6):
            async with bench.transaction("async_session") as transaction:
                await publish(instance.outbox, transaction, CHANNEL, number)
            await recorder.finished(number)
        async with bench.transaction("connection") as transaction:
            await publish(instance.outbox, transaction, CHANNEL, 6)

        await recorder.finished(6)

    async def test_a_slow_broker_does_not_make_a_turn_long(self, bench: Bench) -> None:
        instance = await bench.instance()
        instance.faults.slowness = 0.5  # seconds; the whole batch would take 20
        async with AsyncSession(bench.engine) as session, session.begin():
            ids = await instance.outbox.publish_many(session, CHANNEL, range(40))

        await eventually(lambda: bench.reports("outbox.sent"), timeout=60)

        assert 0 < len(bench.reports("outbox.sent")) < 30
        assert len(instance.faults.tried) < 30
        instance.faults.slowness = 0.0
        stats = await eventually(instance.outbox.stats, lambda found: found.pending == 0)
        assert stats.sent == 40
        assert instance.faults.tried == ids

    async def test_a_stop_lets_the_message_under_way_end(self, bench: Bench) -> None:
        recorder = Recorder()

        def subscribe(cluster: Cluster) -> None:
            cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        other = await bench.instance(relay=False, subscribe=subscribe)
        first = await bench.instance()
        async with AsyncSession(bench.engine) as session, session.begin():
            await first.outbox.publish_many(session, CHANNEL, range(200))
        await recorder.started(5)

        await first.cluster.stop()

        stats = await other.outbox.stats()
        assert stats.pending + len(first.faults.tried) == 200
        await first.cluster.start()
        await recorder.finished(200)
        assert recorder.payloads == list(range(200))
        assert first.faults.tried == recorder.ids
        await eventually(first.outbox.stats, lambda found: found.sent == 200)  # of both starts

    async def test_a_stop_does_not_wait_longer_for_a_message_than_it_may(
        self, bench: Bench
    ) -> None:
        instance = await bench.instance(stop_grace=3600)
        instance.faults.slowness = 3600.0
        async with bench.transaction("async_session") as transaction:
            await publish(instance.outbox, transaction, CHANNEL, 1)
        await eventually(lambda: instance.faults.tried)

        async with asyncio.timeout(30):
            await instance.cluster.stop(timeout=0.1)

        assert (await instance.outbox.stats()).pending == 1

    async def test_a_start_and_a_stop_leave_nothing_behind(self, bench: Bench) -> None:
        instance = await bench.instance(start=False)
        before = asyncio.all_tasks()
        for _ in range(5):
            await instance.cluster.start()
            await instance.cluster.stop()
        assert asyncio.all_tasks() <= before

    async def test_a_missing_table_is_told_and_waited_for(self, bench: Bench) -> None:
        recorder = Recorder()
        table = (await bench.instance(start=False)).outbox.table
        await bench.run(table.drop)
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        begun = instance.outbox.health().since

        _, detail = await eventually(lambda: status(instance), lambda found: found[0] == "down")
        assert "the table my_outbox is missing" in detail
        assert "create_tables" in detail
        down = instance.outbox.health().since

        await bench.run(table.create)
        await eventually(lambda: status(instance) == ("ok", "relaying"))
        assert begun <= down < instance.outbox.health().since
        async with bench.transaction("async_session") as transaction:
            await publish(instance.outbox, transaction, CHANNEL, 1)
        await recorder.finished()
        assert len(bench.reports("outbox.database_lost")) == 1
        assert len(bench.reports("outbox.database_back")) == 1

    @pytest.mark.needs("outage")
    async def test_a_database_that_goes_away_is_survived(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        async with AsyncSession(bench.engine) as session, session.begin():
            await instance.outbox.publish_many(session, CHANNEL, range(100))
        await recorder.started(1)

        await bench.environment.stop_database()
        await eventually(lambda: status(instance), lambda found: found[0] == "down")
        await bench.environment.start_database()

        await eventually(lambda: status(instance), lambda found: found[0] == "ok")
        await bench.engine.dispose()
        async with AsyncSession(bench.engine) as session, session.begin():
            await instance.outbox.publish(session, CHANNEL, 100)
        await eventually(instance.outbox.stats, lambda stats: stats.pending == 0)
        await eventually(lambda: 100 in recorder.payloads)
        assert list(dict.fromkeys(recorder.payloads)) == list(range(101))
