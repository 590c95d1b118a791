"""Scenarios: commits in other threads than that of the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session

from cluster_kit.testing.contracts.transactions.base import Scenarios
from cluster_kit.testing.contracts.transactions.environment import WRITTEN, Work

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind


@pytest.mark.asyncio
class ThreadScenarios(Scenarios):
    """They reach the event loop, and are over when they return."""

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    async def test_a_thread_publishes_in_a_session_that_lives_there(
        self, bench: Bench, end: str
    ) -> None:
        loop = asyncio.get_running_loop()

        def change() -> str:
            with Session(bench.environment.engine) as session:
                session.execute(insert(WRITTEN), {"id": 1})
                message_id = asyncio.run_coroutine_threadsafe(
                    bench.publish(Work(session), 1), loop
                ).result()
                getattr(session, end)()
            return message_id

        message_id = await asyncio.to_thread(change)

        assert await bench.heard() == bench.committed() == ([1] if end == "commit" else [])
        assert (bench.hearer.heard[0].event.id == message_id) == (end == "commit")

    @pytest.mark.needs("threads")
    @pytest.mark.parametrize("kind", ["session", "connection"])
    async def test_a_commit_in_a_thread_is_heard(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        for value in (1, 2, 3):
            await bench.write(work, value, 10 * value)
            await asyncio.to_thread(work.subject.commit)
        await bench.write(work, 4)
        await asyncio.to_thread(work.subject.rollback)
        await work.close()

        assert await bench.heard() == [1, 10, 2, 20, 3, 30]
