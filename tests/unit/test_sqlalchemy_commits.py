"""Commits of a session with two databases, of which one may fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, event, insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from cluster_kit import Cluster, PublishFailure
from cluster_kit.errors import CommitUnconfirmed
from cluster_kit.testing.hearer import Hearer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def count_of_ones(engine: Engine) -> int:
    with engine.connect() as connection:
        found = [connection.scalars(table.select()).all() for table in (ORDERS, BILLS)]
    return sum(ids.count(1) for ids in found)
