from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from sqlalchemy import MetaData, create_engine, event, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from cluster_kit import Cluster
from cluster_kit.errors import ConfigurationError, LockLost, UnknownTransactionError
from cluster_kit.locks import MultiLease
from cluster_kit_sqlalchemy import Fences, StaleSnapshotError, fence_table

METADATA = MetaData()
TABLE = fence_table(METADATA)
FENCES = Fences(Cluster("shop"), table=TABLE)


@dataclass
class Lease:
    """Of somebody who thinks that it is his."""

    fence: int
    key: str = "account"
    app: str = "shop"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/fences.db")
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def write(engine: Engine, lease: Lease) -> None:
    with Session(engine) as session, session.begin():
        FENCES.guard_blocking(session, lease)


def seen(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        rows = session.execute(text("SELECT key, fence FROM cluster_kit_fences"))
        return {row.key: row.fence for row in rows}


def test_an_older_fence_is_refused_and_a_newer_one_is_not(engine: Engine) -> None:
    for fence in (5, 5, 7):
        write(engine, Lease(fence))

    with pytest.raises(LockLost, match="fence 6 is older than 7") as refused:
        write(engine, Lease(6))

    assert refused.value.key == "account"
    assert seen(engine) == {"account": 7}


def test_locks_do_not_meet_and_fences_may_be_large(engine: Engine) -> None:
    write(engine, Lease(2**62, "a"))
    write(engine, Lease(1, "b"))

    assert seen(engine) == {"a": 2**62, "b": 1}


def test_applications_that_share_a_table_do_not_meet(engine: Engine) -> None:
    write(engine, Lease(7))
    with Session(engine) as session, session.begin():
        Fences(Cluster("billing"), table=TABLE).guard_blocking(session, Lease(1, app="billing"))
        rows = session.execute(text("SELECT app, key, fence FROM cluster_kit_fences"))
        assert set(rows) == {("shop", "account", 7), ("billing", "account", 1)}


def test_a_lease_of_another_application_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="'account' is of application 'billing'"):
        write(engine, Lease(7, app="billing"))

    assert seen(engine) == {}


@pytest.mark.parametrize(
    ("lease", "kind"),
    [(None, "NoneType"), (7, "int"), (MultiLease({}), "MultiLease; guard each of its leases")],
)
def test_what_is_no_lease_of_one_lock_is_named(engine: Engine, lease: object, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^lease must be a lease of one lock, not {kind}$"):
        write(engine, cast("Any", lease))


def test_without_a_table_of_yours_it_has_its_default_name(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        Fences(Cluster("shop")).guard_blocking(session, Lease(3))
    assert seen(engine) == {"account": 3}


def test_what_is_rolled_back_was_not_seen(engine: Engine) -> None:
    with Session(engine) as session:
        FENCES.guard_blocking(session, Lease(9))
        session.rollback()

    write(engine, Lease(3))
    assert seen(engine) == {"account": 3}


def test_a_refusal_ends_the_transaction_it_was_in(engine: Engine) -> None:
    write(engine, Lease(9))

    def both() -> None:
        with Session(engine) as session, session.begin():
            FENCES.guard_blocking(session, Lease(10, "other"))
            FENCES.guard_blocking(session, Lease(8))

    with pytest.raises(LockLost):
        both()

    assert seen(engine) == {"account": 9}


@pytest.mark.parametrize("other", [4, 6])
def test_somebody_who_adds_the_row_at_the_same_time_is_seen(engine: Engine, other: int) -> None:
    meanwhile = [other]

    def before(connection: Connection, _: str) -> None:
        if meanwhile:
            fence = meanwhile.pop()
            statement = f"INSERT INTO cluster_kit_fences VALUES ('shop', 'account', {fence})"
            connection.exec_driver_sql(statement)

    with engine.connect() as inserting:
        event.listen(inserting, "savepoint", before)
        with Session(inserting) as session:
            if other > 5:
                with pytest.raises(LockLost):
                    FENCES.guard_blocking(session, Lease(5))
            else:
                FENCES.guard_blocking(session, Lease(5))
                session.commit()
                assert seen(engine) == {"account": 5}


def hidden(*_: object) -> None:
    """Find no row."""


def test_a_row_that_a_snapshot_hides_ends_the_transaction_and_may_be_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(engine, Lease(1))
    # SQLite has no snapshot that hides a row from reading and not from adding.
    for look in ("_raise", "_seen"):
        monkeypatch.setattr(FENCES, look, hidden)

    with pytest.raises(StaleSnapshotError, match="begin it anew") as told:
        write(engine, Lease(2))

    assert (told.value.key, told.value.retryable) == ("account", True)
    assert seen(engine) == {"account": 1}


def test_a_connection_does_as_well_as_a_session(engine: Engine) -> None:
    with engine.begin() as connection:
        FENCES.guard_blocking(connection, Lease(4))
    with engine.begin() as connection, pytest.raises(LockLost, match="older than 4"):
        FENCES.guard_blocking(connection, Lease(3))


def test_a_transaction_that_is_none_is_refused(engine: Engine) -> None:
    with pytest.raises(UnknownTransactionError, match="a Session or Connection, not Engine"):
        FENCES.guard_blocking(cast("Any", engine), Lease(1))
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with alone.connect() as connection, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        FENCES.guard_blocking(connection, Lease(1))


@pytest_asyncio.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/fences.db")
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    yield async_sessionmaker(engine)
    await engine.dispose()


@pytest.mark.asyncio
async def test_a_lease_guards_a_transaction(sessions: async_sessionmaker[AsyncSession]) -> None:
    async with Cluster("shop") as first, Cluster("shop") as second:
        stale = await first.locks.acquire("account", ttl=0.1, renew=False)
        assert stale.app == "shop"
        old = Lease(stale.fence)
        async with second.locks.hold("account") as lease, sessions.begin() as session:
            await FENCES.guard(session, lease)

        with pytest.raises(LockLost, match="its time is over"):
            async with sessions.begin() as session:
                await FENCES.guard(session, stale)
        with pytest.raises(LockLost, match="older"):
            async with sessions.begin() as session:
                await FENCES.guard(session, old)


@pytest.mark.asyncio
async def test_an_async_connection_does_as_well(
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    async with sessions.begin() as session:
        connection = await session.connection()
        await FENCES.guard(connection, Lease(4))
        with pytest.raises(LockLost, match="older than 4"):
            await FENCES.guard(connection, Lease(3))
        with pytest.raises(
            UnknownTransactionError, match=r"AsyncConnection, .* take guard_blocking$"
        ):
            await FENCES.guard(cast("Any", session.sync_session), Lease(5))


def test_a_table_is_made_on_metadata() -> None:
    with pytest.raises(ConfigurationError, match="metadata must be a MetaData, not int"):
        fence_table(cast("MetaData", 5))
