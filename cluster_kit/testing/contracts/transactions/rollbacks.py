"""Scenarios: what is not committed is never sent."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from cluster_kit.testing.contracts.transactions.base import EACH_KIND, Scenarios

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind


@pytest.mark.asyncio
class RollbackScenarios(Scenarios):
    """However a transaction ends without a commit, nothing of it is sent, then or later."""

    @EACH_KIND
    async def test_a_rollback_drops_everything(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1, 2)
        await work.rollback()
        await work.commit()
        await bench.write(work, 3)
        await work.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == [3]

    @EACH_KIND
    async def test_closing_drops_everything(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1)
        await work.close()
        if kind.endswith("session"):  # may be used again, while a connection may not
            await bench.write(work, 2)
            await work.commit()
            await work.close()

        assert await bench.heard() == bench.committed()
        assert 1 not in bench.committed()

    @EACH_KIND
    async def test_closing_inside_a_savepoint_drops_everything(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.write_inside_a_savepoint(work)
        await work.close()

        assert await bench.heard() == bench.committed() == []

    @EACH_KIND
    async def test_a_commit_that_fails_sends_nothing(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.publish(work, 1)
        await work.write(1, parent=404)
        with pytest.raises(IntegrityError):
            await work.commit()
        await work.rollback()
        if not kind.endswith("session"):  # its library does not undo it before it is closed
            await work.close()
            work = await bench.environment.work(kind)
        await bench.write(work, 2)
        await work.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == [2]

    @pytest.mark.needs("dooming_errors")
    @EACH_KIND
    async def test_a_commit_that_would_only_roll_back_is_an_error(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1)
        with pytest.raises(IntegrityError):
            await work.write(1)
        with pytest.raises(DBAPIError):
            await work.commit()
        await work.rollback()
        await work.close()

        assert await bench.heard() == bench.committed() == []

    @EACH_KIND
    async def test_a_lost_connection_drops_everything(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.publish(work, 1)
        await work.invalidate()
        await work.rollback()
        await bench.publish(work, 2)
        await work.commit()
        await work.close()

        assert await bench.heard() == [2]

    @EACH_KIND
    async def test_a_session_that_is_forgotten_is_not_remembered(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.publish(work, 1)
        if kind == "async_connection":  # its library wants to be told
            await work.close()
        del work
        gc.collect()

        assert await bench.heard() == []
