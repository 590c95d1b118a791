"""Scenarios: a session on a connection whose transaction is somebody else's to commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from cluster_kit.testing.contracts.transactions.base import Scenarios
from cluster_kit.testing.contracts.transactions.environment import WRITTEN, Work

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind

Mode = Literal["conditional_savepoint", "rollback_only", "create_savepoint", "control_fully"]
Way = Literal["bind", "binds"]

EACH_MODE = pytest.mark.parametrize(
    "mode", ["conditional_savepoint", "rollback_only", "create_savepoint", "control_fully"]
)
EACH_WAY = pytest.mark.parametrize("way", ["bind", "binds"])
ON_EACH_CONNECTION = pytest.mark.parametrize("kind", ["connection", "async_connection"])


def session_on(connection: Work, mode: Mode, way: Way) -> Work:
    """Return a session that works in the transaction of `connection`."""
    made: Any = AsyncSession if hasattr(connection.subject, "sync_connection") else Session
    given = connection.subject if way == "bind" else {WRITTEN: connection.subject}
    return Work(made(**{way: given}, join_transaction_mode=mode))


async def _commit(connection: Work, savepoint: Work) -> None:
    """Commit what the session left of both."""
    if savepoint.subject.is_active:
        await savepoint.commit()
    await connection.commit()
    await connection.close()


@pytest.mark.asyncio
class JoinedScenarios(Scenarios):
    """What counts is what the database commits, whoever asks for it."""

    @EACH_WAY
    @EACH_MODE
    @ON_EACH_CONNECTION
    async def test_the_connection_has_the_last_word(
        self, bench: Bench, kind: Kind, mode: Mode, way: Way
    ) -> None:
        connection = await bench.environment.work(kind)
        await bench.write(connection, 1)
        session = session_on(connection, mode, way)
        await bench.write(session, 2)
        await session.commit()
        assert await bench.heard() == ([1, 2] if mode == "control_fully" else [])
        await session.close()
        await connection.rollback()
        await connection.close()

        assert await bench.heard() == []
        assert bench.committed() == ([1, 2] if mode == "control_fully" else [])

    @EACH_WAY
    @EACH_MODE
    @ON_EACH_CONNECTION
    async def test_all_is_sent_in_order_when_the_connection_commits(
        self, bench: Bench, kind: Kind, mode: Mode, way: Way
    ) -> None:
        connection = await bench.environment.work(kind)
        await connection.write(0)
        session = session_on(connection, mode, way)
        await bench.write(session, 1)
        await bench.write(connection, 2)
        await bench.write(session, 3)
        await session.commit()
        await session.close()
        await bench.write(connection, 4)
        await connection.commit()
        await connection.close()

        assert await bench.heard() == [1, 2, 3, 4]

    @EACH_WAY
    @EACH_MODE
    @ON_EACH_CONNECTION
    async def test_a_rollback_of_the_session_drops_what_it_undoes(
        self, bench: Bench, kind: Kind, mode: Mode, way: Way
    ) -> None:
        connection = await bench.environment.work(kind)
        await bench.write(connection, 1)
        session = session_on(connection, mode, way)
        await bench.write(session, 2)
        await session.rollback()
        await session.close()
        await connection.commit()
        await connection.close()

        assert await bench.heard() == bench.committed()

    @EACH_WAY
    @EACH_MODE
    @ON_EACH_CONNECTION
    async def test_a_rollback_drops_also_what_came_before_any_statement(
        self, bench: Bench, kind: Kind, mode: Mode, way: Way
    ) -> None:
        connection = await bench.environment.work(kind)
        await bench.write(connection, 1)
        savepoint = await connection.savepoint()
        session = session_on(connection, mode, way)
        await bench.publish(session, "undone")
        await session.rollback()
        await bench.publish(session, "undone, too")
        await session.write(2)
        await session.rollback()
        await session.close()
        await _commit(connection, savepoint)

        assert await bench.heard() == bench.committed()

    @EACH_WAY
    @EACH_MODE
    @ON_EACH_CONNECTION
    async def test_closing_the_session_drops_what_it_undoes(
        self, bench: Bench, kind: Kind, mode: Mode, way: Way
    ) -> None:
        connection = await bench.environment.work(kind)
        await bench.write(connection, 1)
        savepoint = await connection.savepoint()
        session = session_on(connection, mode, way)
        await bench.write(session, 2)
        inner = await session.savepoint()
        await bench.write(session, 3)
        await inner.rollback()
        await session.close()
        await _commit(connection, savepoint)

        assert await bench.heard() == bench.committed()

    @EACH_WAY
    @EACH_MODE
    @ON_EACH_CONNECTION
    async def test_a_session_may_be_the_one_who_begins(
        self, bench: Bench, kind: Kind, mode: Mode, way: Way
    ) -> None:
        connection = await bench.environment.work(kind)
        session = session_on(connection, mode, way)
        await bench.publish(session, 1)
        await session.write(1)
        await bench.publish(session, 2)
        await session.write(2)
        await session.commit()
        await bench.write(session, 3)
        await session.rollback()
        await session.close()
        await connection.close()

        assert await bench.heard() == bench.committed() == [1, 2]
