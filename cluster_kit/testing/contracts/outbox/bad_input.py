"""Scenarios: what cannot be right is refused at the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import MetaData, Table, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from cluster_kit.errors import (
    AlreadyStartedError,
    ConfigurationError,
    EncodeError,
    InvalidNameError,
    MessageTooLargeError,
    PublishRefused,
    UnknownTransactionError,
)
from cluster_kit.testing.contracts.outbox.base import CHANNEL, Scenarios
from cluster_kit.testing.waiting import eventually
from cluster_kit_sqlalchemy import Inbox, Outbox, create_tables

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.outbox.bench import Bench


@dataclass(frozen=True, slots=True)
class _Message:
    id: str


@pytest.mark.asyncio
class BadInputScenarios(Scenarios):
    """Nothing is stored then."""

    @pytest.mark.parametrize(
        ("channel", "payload", "options", "error"),
        [
            ("two words", 1, {}, InvalidNameError),
            ("a.dead", 1, {}, InvalidNameError),
            (CHANNEL, {1: 2}, {}, EncodeError),
            pytest.param(CHANNEL, "x" * 9_000_000, {}, MessageTooLargeError, id="too large"),
            (CHANNEL, 1, {"key": "two words"}, InvalidNameError),
            (CHANNEL, 1, {"key": "x" * 201}, InvalidNameError),
            (CHANNEL, 1, {"ttl": -1}, ConfigurationError),
            (CHANNEL, 1, {"message_id": ""}, ConfigurationError),
            (CHANNEL, 1, {"headers": {"x-a": 1}}, EncodeError),
            (CHANNEL, 1, {"dealy": 1}, TypeError),
        ],
    )
    async def test_a_bad_task_is_refused(
        self,
        bench: Bench,
        channel: str,
        payload: object,
        options: dict[str, Any],
        error: type[Exception],
    ) -> None:
        outbox = (await bench.instance(start=False)).outbox
        async with AsyncSession(bench.engine) as session, session.begin():
            with pytest.raises(error):
                await outbox.publish(session, channel, payload, **options)
            with pytest.raises(TypeError if "message_id" in options else error):
                await outbox.publish_many(session, channel, [payload], **options)
        assert (await outbox.stats()).pending == 0

    async def test_a_bad_broadcast_is_refused(self, bench: Bench) -> None:
        outbox = (await bench.instance(start=False)).outbox
        async with AsyncSession(bench.engine) as session, session.begin():
            with pytest.raises(ConfigurationError, match="reach nobody"):
                await outbox.broadcast(session, CHANNEL, 1, skip_self=True, only_self=True)
            with pytest.raises(InvalidNameError, match="wildcards"):
                await outbox.send_sync_message(session, "a.*", 1)
        assert (await outbox.stats()).pending == 0

    async def test_bad_batches_are_refused_as_the_event_queue_does(self, bench: Bench) -> None:
        outbox = (await bench.instance(start=False)).outbox
        async with AsyncSession(bench.engine) as session, session.begin():
            with pytest.raises(ConfigurationError, match="a list of payloads, not one str"):
                await outbox.publish_many(session, CHANNEL, "abc")
            one: Any = 5
            with pytest.raises(ConfigurationError, match="a list of payloads, not one int"):
                await outbox.publish_many(session, CHANNEL, one)
            with pytest.raises(ConfigurationError, match="ttl"):
                await outbox.publish_many(session, CHANNEL, [], ttl=-1)
            with pytest.raises(EncodeError, match=r"payloads\[1\]: "):
                await outbox.publish_many(session, CHANNEL, [1, {1}])
            many: Any = {"message_id": "names one"}
            with pytest.raises(TypeError, match="message_id"):
                await outbox.publish_many(session, CHANNEL, [1], **many)
        assert (await outbox.stats()).pending == 0

    async def test_a_transaction_of_the_wrong_kind_is_refused(self, bench: Bench) -> None:
        outbox = (await bench.instance(start=False)).outbox
        wrong: Any
        with (
            Session(bench.blocking) as wrong,
            pytest.raises(
                UnknownTransactionError,
                match=r"the transaction must be .* not Session; for that take outbox.blocking$",
            ),
        ):
            await outbox.publish(wrong, CHANNEL, 1)
        async with AsyncSession(bench.engine) as wrong:
            with pytest.raises(
                UnknownTransactionError, match=r"not AsyncSession; .* without blocking"
            ):
                outbox.blocking.publish(wrong, CHANNEL, 1)
        for wrong in (None, bench.engine):
            with pytest.raises(UnknownTransactionError, match="must be an AsyncSession or Async"):
                await outbox.publish(wrong, CHANNEL, 1)
        wrong = async_sessionmaker(bench.engine)
        with pytest.raises(UnknownTransactionError, match="call the async_sessionmaker to get one"):
            await outbox.publish(wrong, CHANNEL, 1)

    async def test_autocommit_is_no_transaction(self, bench: Bench) -> None:
        outbox = (await bench.instance(start=False)).outbox
        engine = bench.engine.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                await outbox.publish(connection, CHANNEL, 1)
        async with AsyncSession(engine) as session:
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                await outbox.publish(session, CHANNEL, 1)
        assert (await outbox.stats()).pending == 0

    async def test_an_engine_in_autocommit_is_refused(self, bench: Bench) -> None:
        instance = await bench.instance(start=False)
        [cluster] = await bench.clusters()
        made = create_async_engine(bench.environment.url(), isolation_level="AUTOCOMMIT")
        for engine in (made, bench.engine.execution_options(isolation_level="AUTOCOMMIT")):
            for kind in (Outbox, Inbox):
                with pytest.raises(ConfigurationError, match="engine is in AUTOCOMMIT mode"):
                    kind(cluster, engine)
            async with AsyncSession(engine) as session:
                with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                    await instance.outbox.publish(session, CHANNEL, 1)
                with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                    await instance.inbox.first(session, _Message("1"), consumer="a")
        await made.dispose()

    async def test_a_bad_outbox_or_inbox_is_refused(self, bench: Bench) -> None:
        running = (await bench.instance()).cluster
        cluster = (await bench.instance(start=False)).cluster
        wrong: Any = create_engine(bench.environment.blocking_url())
        for kind in (Outbox, Inbox):
            with pytest.raises(ConfigurationError, match="must be an AsyncEngine, not Engine"):
                kind(cluster, wrong)
            with pytest.raises(ConfigurationError, match=f"given a second {kind.__name__}"):
                kind(cluster, bench.engine)
            with pytest.raises(AlreadyStartedError):
                kind(running, bench.engine)
        with pytest.raises(ConfigurationError, match="batch_size"):
            Outbox(cluster, bench.engine, batch_size=0)
        with pytest.raises(ConfigurationError, match="poll_interval"):
            Outbox(cluster, bench.engine, poll_interval=0)
        with pytest.raises(ConfigurationError, match="retry is a RetryPolicy, not int"):
            Outbox(cluster, bench.engine, retry=cast("Any", 3))
        with pytest.raises(ConfigurationError, match="retention"):
            Inbox(cluster, bench.engine, retention=-1)
        memory = create_async_engine("sqlite+aiosqlite://")
        with pytest.raises(ConfigurationError, match="needs a SQLite file"):
            Outbox(cluster, memory)
        await memory.dispose()
        wrong.dispose()

    @pytest.mark.parametrize(
        ("kind", "options", "text"),
        [
            (Outbox, {"relay": "no"}, "relay must be True or False, not 'no'"),
            (Outbox, {"listen": 3}, "listen must be True or False, not 3"),
            (Outbox, {"table": "x"}, "table must be a Table, not str"),
            (Outbox, {"table": Table("x", MetaData())}, "table 'x' lacks columns: position, app"),
            (Outbox, {"max_retries": "3"}, "max_retries must be an integer, not str"),
            (Inbox, {"table": "x"}, "table must be a Table, not str"),
            (Inbox, {"sessions": sessionmaker()}, "sessions: .* take an async_sessionmaker"),
            (Inbox, {"sessions": 3}, "sessions is a function, not int"),
        ],
    )
    async def test_a_bad_option_is_named(
        self, bench: Bench, kind: type[Outbox | Inbox], options: dict[str, Any], text: str
    ) -> None:
        [cluster] = await bench.clusters()
        with pytest.raises(ConfigurationError, match=text):
            kind(cluster, bench.engine, **options)
        with pytest.raises(TypeError, match="bacth_size"):
            kind(cluster, bench.engine, **cast("Any", {"bacth_size": 3}))

    async def test_sessions_that_block_are_named_by_the_handler(self, bench: Bench) -> None:
        [cluster] = await bench.clusters()
        make: Any = lambda: Session(bench.blocking)  # noqa: E731 - what cannot be seen before
        inbox = Inbox(cluster, bench.engine, sessions=make)

        @inbox.handler("billing")
        async def bill(_payload: object, _session: AsyncSession) -> None: ...

        with pytest.raises(ConfigurationError, match="sessions made no AsyncSession but Session"):
            await bill(None, _Message("1"))

    async def test_a_bad_table_or_engine_is_not_created(self, bench: Bench) -> None:
        wrong: Any = bench.blocking
        with pytest.raises(ConfigurationError, match="create_async_engine"):
            await create_tables(wrong)
        wrong = "my_outbox"
        with pytest.raises(ConfigurationError, match="tables must be a Table, not str"):
            await create_tables(bench.engine, wrong)

    async def test_ids_that_are_none_change_nothing(self, bench: Bench) -> None:
        instance = await bench.instance(max_retries=0)
        instance.faults.of[CHANNEL] = PublishRefused("full")
        async with AsyncSession(bench.engine) as session, session.begin():
            await instance.outbox.publish(session, CHANNEL, 1, message_id="m1")
        await eventually(instance.outbox.failed)

        wrong: Any
        for wrong, text in (("m1", "not one str"), ([1], "a str, not int"), (7, "not one int")):
            with pytest.raises(ConfigurationError, match=f"ids.*{text}"):
                await instance.outbox.replay(wrong)
            with pytest.raises(ConfigurationError, match=f"ids.*{text}"):
                await instance.outbox.discard(wrong)

        assert [failed.id for failed in await instance.outbox.failed()] == ["m1"]
        assert await instance.outbox.discard(("m1",)) == 1

    async def test_a_message_or_transaction_that_is_none_is_named(self, bench: Bench) -> None:
        inbox = (await bench.instance(start=False)).inbox
        wrong: Any = None
        with pytest.raises(
            UnknownTransactionError, match=r"the transaction must be .* not NoneType"
        ):
            await inbox.first(wrong, _Message("1"), consumer="a")
        refused = pytest.raises(UnknownTransactionError, match=r"that take first_blocking$")
        with Session(bench.blocking) as wrong, refused:
            await inbox.first(wrong, _Message("1"), consumer="a")
        async with AsyncSession(bench.engine) as session:
            for wrong in (None, _Message(cast("Any", 7)), "1"):
                with pytest.raises(ConfigurationError, match="message must be a Delivery"):
                    await inbox.first(session, wrong, consumer="a")

    async def test_a_table_that_is_missing_is_told(self, bench: Bench) -> None:
        instance = await bench.instance(start=False)
        for table in (instance.outbox.table, instance.inbox.table):
            await bench.run(table.drop)
        told = r"the table my_(out|in)box is missing .* create_tables\(engine, table\)"

        async with AsyncSession(bench.engine) as session:
            with pytest.raises(ConfigurationError, match=told):
                await instance.outbox.publish(session, CHANNEL, 1)
            await session.rollback()
            with pytest.raises(ConfigurationError, match=told):
                await instance.inbox.first(session, _Message("1"), consumer="a")
        for ask in (instance.outbox.stats, instance.outbox.failed, instance.inbox.prune):
            with pytest.raises(ConfigurationError, match=told):
                await ask()
        with (
            bench.blocking.connect() as connection,
            pytest.raises(ConfigurationError, match=told),
        ):
            instance.outbox.blocking.publish(connection, CHANNEL, 1)

    async def test_a_bad_handler_is_refused(self, bench: Bench) -> None:
        inbox = (await bench.instance()).inbox

        async def effect(_payload: object, _session: AsyncSession) -> None: ...

        async def short(_payload: object) -> None: ...

        def blocking(_payload: object, _session: Session) -> None: ...

        wrong: Any
        for wrong, text in ((short, "must take"), (blocking, "async def"), (None, "async def")):
            with pytest.raises(ConfigurationError, match=text):
                inbox.handler(f"of-{text.split()[0]}-{wrong}".replace(" ", ""))(wrong)
        with pytest.raises(InvalidNameError):
            inbox.handler("")
        inbox.handler("billing")(effect)
        with pytest.raises(ConfigurationError, match="two handlers for consumer 'billing'"):
            inbox.handler("billing")
