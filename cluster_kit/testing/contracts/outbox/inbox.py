"""Scenarios: a message that comes again has no effects again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, MetaData, String, Table, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from cluster_kit.clock import SystemClock
from cluster_kit.errors import ConfigurationError
from cluster_kit.message import Delivery, Reject
from cluster_kit.testing.contracts.outbox.base import CHANNEL, EACH_KIND, Scenarios
from cluster_kit.testing.waiting import eventually
from cluster_kit_sqlalchemy import Inbox

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cluster_kit.testing.contracts.outbox.bench import Bench, Kind


@dataclass(frozen=True, slots=True)
class _Message:
    """What an inbox needs to know of one."""

    id: str
    id_is_stable: bool = True


@dataclass(frozen=True, slots=True)
class Order:
    """A payload that is validated."""

    number: int


@pytest.mark.asyncio
class InboxScenarios(Scenarios):
    """Once for each consumer, whatever comes twice, fails, or comes at the same time."""

    async def test_a_message_that_comes_again_has_no_effect_again(self, bench: Bench) -> None:
        instance = await bench.instance()

        @instance.inbox.handler("billing")
        async def bill(_payload: object, session: AsyncSession) -> None:
            await session.execute(bench.effect("billed"))

        @instance.inbox.handler("mails")
        async def mail(_payload: object, session: AsyncSession, about: _Message) -> None:
            await session.execute(bench.effect(f"mailed {about.id}"))

        for _ in range(3):
            await bill(None, _Message("1"))
            await mail(None, _Message("1"))

        assert await bench.effects_of("billed") == 1
        assert await bench.effects_of("mailed 1") == 1
        assert [event["consumer"] for event in bench.reports("inbox.repeated")] == [
            *("billing", "mails") * 2
        ]
        assert (instance.inbox.stats().first, instance.inbox.stats().repeated) == (2, 4)

    async def test_a_message_without_an_id_of_its_own_is_rejected(self, bench: Bench) -> None:
        instance = await bench.instance()
        foreign = _Message("made up", id_is_stable=False)

        @instance.inbox.handler("billing")
        async def bill(_payload: object, session: AsyncSession) -> None:
            await session.execute(bench.effect("billed"))

        with pytest.raises(Reject, match="gave this message no id"):
            await bill(None, foreign)
        async with AsyncSession(bench.engine) as session, session.begin():
            with pytest.raises(Reject, match="gave this message no id"):
                await instance.inbox.first(session, foreign, consumer="a")

        assert await bench.effects_of("billed") == 0

    async def test_a_handler_that_fails_has_no_effect_and_may_try_again(self, bench: Bench) -> None:
        instance = await bench.instance()
        errors: list[Exception] = [ValueError("first"), ValueError("second")]

        @instance.inbox.handler("billing")
        async def bill(_payload: object, session: AsyncSession) -> None:
            await session.execute(bench.effect("billed"))
            if errors:
                raise errors.pop(0)

        for text in ("first", "second"):
            with pytest.raises(ValueError, match=text):
                await bill(None, _Message("1"))
            assert await bench.effects_of("billed") == 0
        await bill(None, _Message("1"))
        await bill(None, _Message("1"))

        assert await bench.effects_of("billed") == 1

    @pytest.mark.parametrize(
        "level",
        [
            pytest.param(None),
            *(
                pytest.param(level, marks=pytest.mark.needs("isolation"))
                for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
            ),
        ],
    )
    async def test_of_copies_handled_at_the_same_time_one_has_effects(
        self, bench: Bench, level: str | None
    ) -> None:
        options = {} if level is None else {"isolation_level": level}
        engine = create_async_engine(bench.environment.url(), **options)
        instance = await bench.instance(engine=engine)

        @instance.inbox.handler("billing")
        async def bill(_payload: object, session: AsyncSession) -> None:
            await session.execute(bench.effect("billed"))
            await asyncio.sleep(0.01)

        for number in range(5):
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(_awaited(bill(None, _Message(f"{number}"))))

        assert await bench.effects_of("billed") == 5
        await instance.cluster.stop()
        await engine.dispose()

    async def test_a_handler_of_the_event_queue_is_validated_and_called_once(
        self, bench: Bench
    ) -> None:
        instances = [await bench.instance() for _ in range(2)]
        for instance in instances:

            @instance.inbox.handler("billing")
            async def bill(order: Order, session: AsyncSession, delivery: Delivery) -> None:
                assert delivery.channel == CHANNEL
                await session.execute(bench.effect(f"order {order.number}"))

            instance.cluster.event_queue.subscribe(CHANNEL, bill)

        queue = instances[0].cluster.event_queue
        for _ in range(3):  # an instance that finished it knows its id, the other does not
            for number in range(10):
                await queue.publish(CHANNEL, Order(number), message_id=f"id-{number}")
        await queue.publish(CHANNEL, "no order", max_retries=0)

        await eventually(
            lambda: sum(i.inbox.stats().first for i in instances), lambda first: first == 10
        )
        letters = queue.dead_letters(CHANNEL)
        [letter] = await eventually(letters.browse)
        assert letter.reason == "undecodable"
        for number in range(10):
            assert await bench.effects_of(f"order {number}") == 1

    async def test_a_sync_message_has_its_effect_on_one_instance(self, bench: Bench) -> None:
        sender, *others = [await bench.instance() for _ in range(4)]
        for instance in others:

            @instance.inbox.handler("sources")
            async def note(_message: object, session: AsyncSession) -> None:
                await session.execute(bench.effect("source"))

            await instance.cluster.sync_messages.subscribe("sources", note)

        async with AsyncSession(bench.engine) as session, session.begin():
            await sender.outbox.send_sync_message(session, "sources", 1)

        await eventually(lambda: len(bench.reports("inbox.repeated")) == 2)
        assert await bench.effects_of("source") == 1

    async def test_effects_and_messages_that_follow_are_one_transaction(self, bench: Bench) -> None:
        instance = await bench.instance()
        failing = [ValueError("after it was published")]

        @instance.inbox.handler("billing")
        async def bill(_payload: object, session: AsyncSession) -> None:
            await session.execute(bench.effect("billed"))
            await instance.outbox.publish(session, "mails", "billed", message_id="mail")
            if failing:
                raise failing.pop()

        instance.cluster.event_queue.subscribe(CHANNEL, bill)
        await instance.cluster.event_queue.publish(CHANNEL, None)

        await eventually(lambda: bench.reports("outbox.sent"))
        assert [event["id"] for event in bench.reports("outbox.sent")] == ["mail"]
        assert await bench.effects_of("billed") == 1

    @EACH_KIND
    async def test_transactions_of_ones_own_are_asked(self, bench: Bench, kind: Kind) -> None:
        inbox = (await bench.instance()).inbox
        answers: list[bool] = []
        for consumer in ("a", "a", "b"):
            async with bench.transaction(kind) as transaction:
                message = _Message("1")
                if isinstance(transaction, AsyncSession | AsyncConnection):
                    first = await inbox.first(transaction, message, consumer=consumer)
                else:
                    first = inbox.first_blocking(transaction, message, consumer=consumer)
                answers.append(first)
        assert answers == [True, False, True]

    async def test_what_threads_meet_again_is_told_on_the_event_loop(self, bench: Bench) -> None:
        instance = await bench.instance()
        heard: list[str] = []

        def hear(event: str, _fields: object) -> None:
            if event == "inbox.repeated":
                heard.append(threading.current_thread().name)

        instance.cluster.telemetry.subscribe(hear)

        def note(connection: Connection) -> bool:
            message = _Message("1")
            return instance.inbox.first_blocking(connection, message, consumer="a")

        assert [await bench.run(note) for _ in range(3)] == [True, False, False]

        await eventually(lambda: len(heard) == 2)
        assert set(heard) == {threading.current_thread().name}
        stats = instance.inbox.stats()
        assert (stats.first, stats.repeated) == (1, 2)

    async def test_health_says_since_when(self, bench: Bench) -> None:
        instance = await bench.instance(relay=False)
        for part in (instance.inbox, instance.outbox):
            since = part.health().since
            await asyncio.sleep(0.01)
            assert part.health().since == since

    async def test_what_is_older_than_the_retention_is_forgotten(self, bench: Bench) -> None:
        instance = await bench.instance()
        inbox = Inbox(
            (await bench.instance(start=False, inbox=False)).cluster,
            bench.engine,
            table=instance.inbox.table,
            retention=timedelta(days=1),
        )
        now = SystemClock().wall()
        key = {"app": instance.cluster.outlets.app, "consumer": "a"}
        rows = [
            {**key, "message_id": str(number), "handled_at": now - 90_000 * (number % 2)}
            for number in range(2_400)
        ]
        await bench.run(lambda connection: connection.execute(insert(inbox.table), rows))

        assert await inbox.prune() == 1_200
        assert await inbox.prune() == 0

        async with AsyncSession(bench.engine) as session, session.begin():
            assert not await inbox.first(session, _Message("2"), consumer="a")
            assert await inbox.first(session, _Message("1"), consumer="a")

    @pytest.mark.parametrize("wrong_by", [timedelta(days=30), timedelta(days=-30)], ids=str)
    async def test_an_instance_whose_clock_is_wrong_forgets_nothing_early(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
    ) -> None:
        inbox, wall = (await bench.instance()).inbox, SystemClock().wall

        def wrong(_clock: SystemClock) -> float:
            return wall() + wrong_by.total_seconds()

        async def first(name: str) -> bool:
            async with AsyncSession(bench.engine) as session, session.begin():
                return await inbox.first(session, _Message(name), consumer="a")

        assert await first("noted when it was right")
        with monkeypatch.context() as patch:
            patch.setattr(SystemClock, "wall", wrong)
            assert await first("noted when it was wrong")
            assert await inbox.prune() == 0
        assert await inbox.prune() == 0
        assert not await first("noted when it was right")
        assert not await first("noted when it was wrong")

    async def test_applications_that_share_a_table_keep_apart(self, bench: Bench) -> None:
        own = (await bench.instance()).inbox
        [cluster] = await bench.clusters(name="mail")
        other = Inbox(cluster, bench.engine, table=own.table, retention=timedelta(days=1))

        async def first(inbox: Inbox) -> bool:
            async with AsyncSession(bench.engine) as session, session.begin():
                return await inbox.first(session, _Message("order-17"), consumer="billing")

        assert [await first(own), await first(other), await first(own)] == [True, True, False]
        long_ago = update(own.table).values(handled_at=0)
        await bench.run(lambda connection: connection.execute(long_ago))

        assert await other.prune() == 1
        assert [await first(own), await first(other)] == [False, True]

    @pytest.mark.parametrize("with_app", [False, True])
    async def test_a_table_of_before_applications_were_told_apart_is_named(
        self, bench: Bench, *, with_app: bool
    ) -> None:
        inbox = (await bench.instance()).inbox
        await bench.run(inbox.table.drop)
        names = ("consumer", "message_id", "handled_at", *(["app"] if with_app else []))
        columns = [
            Column(name, String(200), primary_key=name in ("consumer", "message_id"))
            for name in names
        ]
        await bench.run(Table("my_inbox", MetaData(), *columns).create)

        async with AsyncSession(bench.engine) as session:
            with pytest.raises(ConfigurationError, match=r"my_inbox .* not up to date .*change it"):
                await inbox.first(session, _Message("1"), consumer="a")


async def _awaited(work: Awaitable[None]) -> None:
    await work
