"""Scenarios: effects that end the transaction of their inbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from cluster_kit.message import Reject
from cluster_kit.testing.contracts.outbox.base import Scenarios

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.outbox.bench import Bench

Effect = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Message:
    id: str = "1"


async def _commits(session: AsyncSession) -> None:
    await session.commit()


async def _commits_and_fails(session: AsyncSession) -> None:
    await session.commit()
    raise ConnectionError


async def _commits_and_goes_on(session: AsyncSession) -> None:
    await session.commit()
    await session.execute(text("SELECT 1"))


async def _rolls_back(session: AsyncSession) -> None:
    await session.rollback()


async def _rolls_back_and_goes_on(session: AsyncSession) -> None:
    await session.rollback()
    await session.execute(text("SELECT 1"))


async def _rolls_back_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).rollback()


async def _closes(session: AsyncSession) -> None:
    await session.close()


async def _catches_an_error(session: AsyncSession) -> None:
    with pytest.raises(DBAPIError):
        await session.execute(text("SELECT * FROM no_such_table"))


async def _uses_savepoints(session: AsyncSession) -> None:
    with pytest.raises(DBAPIError):
        async with session.begin_nested():
            await session.execute(text("SELECT * FROM no_such_table"))
    async with session.begin_nested():
        await session.execute(text("SELECT 1"))


@pytest.mark.asyncio
class EndingScenarios(Scenarios):
    """All effects with the note of the message, or an error."""

    @pytest.mark.parametrize("end", [_commits, _commits_and_fails, _commits_and_goes_on])
    async def test_an_effect_that_commits_is_rejected(self, bench: Bench, end: Effect) -> None:
        with pytest.raises(Reject, match=r"must not commit.* counts as handled"):
            await _handle(bench, end)

        assert await bench.effects_of("billed") == 1

    @pytest.mark.parametrize(
        "end", [_rolls_back, _rolls_back_and_goes_on, _rolls_back_the_connection, _closes]
    )
    @pytest.mark.filterwarnings("ignore:transaction already deassociated")  # its session is told
    async def test_an_effect_that_rolls_back_is_rejected(self, bench: Bench, end: Effect) -> None:
        with pytest.raises(Reject, match="must not commit, roll back or close"):
            await _handle(bench, end)

        assert await bench.effects_of("billed") == 0

    async def test_one_that_rolls_back_and_fails_is_tried_again(self, bench: Bench) -> None:
        errors: list[Exception] = [ConnectionError()]

        async def end(session: AsyncSession) -> None:
            if errors:
                await session.rollback()
                raise errors.pop()

        with pytest.raises(ConnectionError):
            await _handle(bench, end)
        await _handle(bench, end)

        assert await bench.effects_of("billed") == 1

    async def test_an_error_of_the_database_that_is_caught_loses_nothing(
        self, bench: Bench
    ) -> None:
        said = ""
        try:
            await _handle(bench, _catches_an_error)
        except DBAPIError as exc:
            said = str(exc)

        assert not said or "in a savepoint, async with session.begin_nested()" in said
        assert await bench.effects_of("billed") == (0 if said else 1)

    async def test_savepoints_are_its_own(self, bench: Bench) -> None:
        for _ in range(2):
            await _handle(bench, _uses_savepoints)

        assert await bench.effects_of("billed") == 1


async def _handle(bench: Bench, end: Effect) -> None:
    """Handle a message by an instance of its own, with an effect that ends like this."""
    instance = await bench.instance()

    @instance.inbox.handler("billing")
    async def bill(_payload: object, session: AsyncSession) -> None:
        await session.execute(bench.effect("billed"))
        await end(session)

    await bill(None, _Message())
