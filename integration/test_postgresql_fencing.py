"""Fences on PostgreSQL, where transactions wait for each other and read from snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from sqlalchemy import MetaData, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cluster_kit import Cluster
from cluster_kit.errors import LockLost
from cluster_kit.testing.waiting import eventually
from cluster_kit_sqlalchemy import Fences, StaleSnapshotError, fence_table

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

METADATA = MetaData()
TABLE = fence_table(METADATA)
FENCES = Fences(Cluster("shop"), table=TABLE)
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
BEGIN_ANEW = (StaleSnapshotError, DBAPIError)


@dataclass(frozen=True)
class Lease:
    """Of somebody who thinks that it is his."""

    fence: int
    key: str = "account"
    app: str = "shop"


@pytest_asyncio.fixture(params=LEVELS)
async def engine(request: pytest.FixtureRequest, postgresql: str) -> AsyncIterator[AsyncEngine]:
    address = postgresql.removeprefix("postgresql://")
    engine = create_async_engine(
        f"postgresql+asyncpg://{address}", isolation_level=str(request.param)
    )
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    yield engine
    await engine.dispose()


async def write(engine: AsyncEngine, fence: int) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await FENCES.guard(session, Lease(fence))


async def insist(engine: AsyncEngine, fence: int) -> None:
    """Write, in as many transactions as it takes."""
    while True:
        try:
            await write(engine, fence)
        except BEGIN_ANEW:
            continue
        return


async def highest(engine: AsyncEngine) -> int:
    async with AsyncSession(engine) as session:
        return int((await session.execute(select(TABLE.c.fence))).scalar_one())


async def test_a_row_added_behind_a_snapshot_ends_the_transaction(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1 FROM cluster_kit_fences"))  # takes the snapshot
        await write(engine, 1)
        if await session.scalar(text("SHOW transaction_isolation")) == "read committed":
            await FENCES.guard(session, Lease(2))
            await session.commit()
        else:
            with pytest.raises(BEGIN_ANEW, match=r"begin it anew|could not serialize"):
                await FENCES.guard(session, Lease(2))

    await insist(engine, 2)
    assert await highest(engine) == 2


async def test_an_older_fence_behind_a_snapshot_writes_nothing(engine: AsyncEngine) -> None:
    await write(engine, 1)
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1 FROM cluster_kit_fences"))
        await write(engine, 5)
        with pytest.raises((LockLost, *BEGIN_ANEW)):
            await FENCES.guard(session, Lease(3))

    with pytest.raises(LockLost, match="fence 3 is older than 5"):
        await insist(engine, 3)
    assert await highest(engine) == 5


@pytest.mark.parametrize("first", [None, 1])
async def test_a_newer_holder_waits_for_an_older_one(
    engine: AsyncEngine, first: int | None
) -> None:
    if first is not None:
        await write(engine, first)
    async with AsyncSession(engine) as older, older.begin():
        await FENCES.guard(older, Lease(2))
        newer = asyncio.create_task(insist(engine, 3))
        await eventually(lambda: _waits(engine))
        assert not newer.done()
    await newer

    assert await highest(engine) == 3


async def _waits(engine: AsyncEngine) -> bool:
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with engine.connect() as connection:
        return bool((await connection.execute(query)).scalar_one())


async def test_many_at_once_leave_the_highest(engine: AsyncEngine) -> None:
    async def try_it(fence: int) -> bool:
        try:
            await insist(engine, fence)
        except LockLost:
            return False
        return True

    written = await asyncio.gather(*(try_it(fence) for fence in (3, 1, 5, 2, 4)))
    assert written[2]
    assert await highest(engine) == 5


async def test_the_longest_key_of_a_permit_has_room(engine: AsyncEngine) -> None:
    async with Cluster("shop") as cluster, AsyncSession(engine) as session, session.begin():
        semaphore = cluster.locks.semaphore("k" * 200, 100)
        permits = [await semaphore.acquire() for _ in range(100)]
        longest = max(permits, key=lambda permit: len(permit.key))
        await FENCES.guard(session, longest)
        for permit in permits:
            await permit.release()
    assert len(longest.key) > 202
    assert await highest(engine) > 0
