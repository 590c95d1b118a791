"""Scenarios: what is in no transaction, or in an unknown one, is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from cluster_kit.errors import ConfigurationError
from cluster_kit.testing.contracts.transactions.base import Scenarios
from cluster_kit.testing.contracts.transactions.environment import Work

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench

_AUTOCOMMIT: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}


@pytest.mark.asyncio
class RefusalScenarios(Scenarios):
    """An error at once, or at the commit, and no message."""

    @pytest.mark.parametrize("way", ["session", "async_session", "connection", "async_connection"])
    async def test_what_commits_each_statement_by_itself_is_refused(
        self, bench: Bench, way: str
    ) -> None:
        work = await _committing_by_itself(bench, way)
        await work.write(1)
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            await bench.publish(work, 1)
        await work.commit()
        await work.close()

        assert await bench.heard() == []

    @pytest.mark.parametrize("way", ["session", "async_session"])
    async def test_a_session_that_turns_out_to_commit_by_itself_is_refused_at_its_commit(
        self, bench: Bench, way: str
    ) -> None:
        work = await _committing_by_itself(bench, way)
        await bench.publish(work, 1)
        await work.write(1)
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            await work.commit()
        await work.close()

        assert await bench.heard() == []

    async def test_a_registry_of_sessions_is_refused_and_what_it_returns_is_not(
        self, bench: Bench
    ) -> None:
        environment = bench.environment
        sessions = scoped_session(sessionmaker(environment.engine))
        made = async_sessionmaker(environment.async_engine)
        async_sessions = async_scoped_session(made, scopefunc=asyncio.current_task)
        registries: list[Any] = [sessions, async_sessions]
        for number, registry in enumerate(registries, 1):
            with pytest.raises(ConfigurationError, match=r"call the \w+ to get that of this scope"):
                await bench.publish(Work(registry), "refused")
            work = Work(registry())
            await bench.write(work, number)
            await work.commit()
            await work.close()
        sessions.remove()
        await async_sessions.remove()

        assert await bench.heard() == bench.committed() == [1, 2]


async def _committing_by_itself(bench: Bench, way: str) -> Work:
    engine, async_engine = bench.environment.engine, bench.environment.async_engine
    if way == "session":
        return Work(Session(engine.execution_options(**_AUTOCOMMIT)))
    if way == "async_session":
        return Work(AsyncSession(async_engine.execution_options(**_AUTOCOMMIT)))
    if way == "connection":
        return Work(engine.connect().execution_options(**_AUTOCOMMIT))
    connection = await async_engine.connect()
    return Work(await connection.execution_options(**_AUTOCOMMIT))
