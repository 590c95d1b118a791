"""Commits of a session with two databases, of which one may fail."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from cluster_kit import Cluster, PublishFailure
from cluster_kit.errors import CommitUnconfirmed
from cluster_kit.testing.hearer import Hearer
from cluster_kit_sqlalchemy.connections import ConnectionJournals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cluster_kit_sqlalchemy.journal import Journal

CHANNEL = "orders"
METADATA = MetaData()
ORDERS, BILLS = [Table(name, METADATA, Column("id", Integer)) for name in ("orders", "bills")]


@pytest.fixture
def engines(tmp_path: Path) -> list[Engine]:
    made = [create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("orders", "bills")]
    for engine in made:
        METADATA.create_all(engine)
    return made


def fail_in(engine: Engine, step: Literal["listener", "database"]) -> Callable[[], None]:
    """Let commits fail; return what mends it."""
    if step == "listener":

        def fail(*_: object) -> None:
            raise RuntimeError

        event.listen(engine, "commit", fail)
        return lambda: event.remove(engine, "commit", fail)

    commit = engine.dialect.do_commit

    def refuse(_: object) -> None:
        raise engine.dialect.loaded_dbapi.OperationalError("database is locked")

    vars(engine.dialect)["do_commit"] = refuse
    return lambda: vars(engine.dialect).update(do_commit=commit)


@pytest.mark.asyncio
@pytest.mark.parametrize("failing", ["orders", "bills"])
@pytest.mark.parametrize("step", ["listener", "database"])
async def test_what_is_committed_in_part_is_told(
    engines: list[Engine], failing: str, step: Literal["listener", "database"]
) -> None:
    hearer, failures = Hearer(), list[PublishFailure]()
    broken = engines[["orders", "bills"].index(failing)]
    mend = fail_in(broken, step)
    async with Cluster("shop") as cluster:
        await cluster.sync_messages.subscribe(CHANNEL, hearer.handle)
        cluster.on_publish_failure(failures.append)
        with Session(binds={ORDERS: engines[0], BILLS: engines[1]}) as session:
            session.execute(insert(ORDERS), {"id": 1})
            await cluster.sync_messages.publish(CHANNEL, 1, transaction=session, skip_self=False)
            session.execute(insert(BILLS), {"id": 1})
            with pytest.raises((OperationalError, RuntimeError)):
                session.commit()
        mend()
        broken.dispose()  # its connection would go on in the transaction
        with Session(binds={ORDERS: engines[0], BILLS: engines[1]}) as session, session.begin():
            await cluster.sync_messages.publish(CHANNEL, 2, transaction=session, skip_self=False)
            session.execute(insert(ORDERS), {"id": 2})
            session.execute(insert(BILLS), {"id": 2})
        assert await hearer.hears(1) == [2]

    rows = {engine: count_of_ones(engine) for engine in engines}
    assert rows[broken] == 0
    assert [failure.payload for failure in failures] == [1] * sum(rows.values())
    assert all(isinstance(failure.error, CommitUnconfirmed) for failure in failures)


@pytest.mark.asyncio
@pytest.mark.parametrize(("code", "told"), [("23503", 0), ("40001", 0), ("57P01", 1), ("08006", 1)])
async def test_an_error_that_refuses_the_commit_is_told_from_one_of_the_connection(
    engines: list[Engine], code: str, told: int
) -> None:
    failures = list[PublishFailure]()
    dialect = engines[0].dialect

    class Refusal(dialect.loaded_dbapi.OperationalError):  # type: ignore[misc,name-defined]
        sqlstate = code

    def refuse(_: object) -> None:
        raise Refusal

    vars(dialect)["do_commit"] = refuse
    async with Cluster("shop") as cluster:
        cluster.on_publish_failure(failures.append)
        with Session(engines[0]) as session:
            session.execute(insert(ORDERS), {"id": 1})
            await cluster.sync_messages.publish(CHANNEL, 1, transaction=session)
            with pytest.raises(OperationalError):
                session.commit()
        assert len(failures) == told


class Publication:
    """A `Waiting` that notes what becomes of it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told = name, told

    def committed(self) -> None:
        self._told.append(self._name)

    def in_doubt(self, why: str) -> None:
        self._told.append(f"{self._name}: {why}")


class Bystander:
    """A `Committing` that has nothing waiting."""

    def committed(self, subject: object, journal: Journal) -> None: ...

    def in_doubt(self, subject: object, journal: Journal) -> None: ...


def test_threads_that_meet_a_database_first_learn_from_it_once(engines: list[Engine]) -> None:
    meeting, asked = threading.Barrier(2, timeout=0.5), threading.local()

    class Slow(type(engines[0].dialect)):  # type: ignore[misc]
        supports_statement_cache = True

        def __hash__(self) -> int:
            asked.times = getattr(asked, "times", 0) + 1
            if asked.times == 2:  # it was not known a moment ago
                with contextlib.suppress(threading.BrokenBarrierError):
                    meeting.wait()
            return id(self)

    engines[0].dialect.__class__ = Slow
    journals, told = ConnectionJournals(), list[str]()

    def learn(connection: Connection) -> None:
        journals.expect(connection, Bystander())

    with engines[0].connect() as connection, engines[0].connect() as other:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(learn, (connection, other)))
        with connection.begin():
            journals.note(connection, Publication("outside", told))
            savepoint = connection.begin_nested()
            journals.note(connection, Publication("inside", told))
            savepoint.rollback()

    assert told == ["outside"]


def count_of_ones(engine: Engine) -> int:
    with engine.connect() as connection:
        found = [connection.scalars(table.select()).all() for table in (ORDERS, BILLS)]
    return sum(ids.count(1) for ids in found)
