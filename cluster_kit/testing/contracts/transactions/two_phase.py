"""Scenarios: two-phase commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from cluster_kit.testing.contracts.transactions.base import Scenarios
from cluster_kit.testing.contracts.transactions.environment import Work

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench


@pytest.mark.asyncio
class TwoPhaseScenarios(Scenarios):
    """Prepared is not committed."""

    @pytest.mark.needs("two_phase")
    async def test_a_connection_sends_after_the_second_phase(self, bench: Bench) -> None:
        work = await bench.environment.work("connection")
        for value, end in ((1, "commit"), (2, "rollback"), (3, "commit")):
            transaction = work.subject.begin_twophase()
            await bench.write(work, value)
            transaction.prepare()
            assert await bench.heard() == []
            getattr(transaction, end)()
            assert await bench.heard() == ([value] if end == "commit" else [])
        await work.close()

    @pytest.mark.needs("two_phase", "dooming_errors")
    async def test_a_commit_without_a_first_phase_that_would_only_roll_back_is_an_error(
        self, bench: Bench
    ) -> None:
        work = await bench.environment.work("connection")
        transaction = work.subject.begin_twophase()
        await bench.write(work, 1)
        with pytest.raises(IntegrityError):
            await work.write(1)
        with pytest.raises(DBAPIError):
            transaction.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == []

    @pytest.mark.needs("two_phase")
    async def test_a_session_sends_after_the_second_phase(self, bench: Bench) -> None:
        work = Work(Session(bench.environment.engine, twophase=True))
        await bench.write(work, 1)
        work.subject.prepare()
        assert await bench.heard() == []
        await work.commit()
        assert await bench.heard() == [1]
        await bench.write(work, 2)
        work.subject.prepare()
        await work.rollback()
        await work.close()

        assert await bench.heard() == []
