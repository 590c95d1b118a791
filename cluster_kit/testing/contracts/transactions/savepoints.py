"""Scenarios: savepoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.transactions.base import EACH_KIND, Scenarios

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind


@pytest.mark.asyncio
class SavepointScenarios(Scenarios):
    """One that is rolled back drops what was published inside it, and nothing else."""

    @EACH_KIND
    async def test_a_released_savepoint_keeps_and_a_rolled_back_one_drops(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1)
        released = await work.savepoint()
        await bench.write(work, 2)
        await released.commit()
        undone = await work.savepoint()
        await bench.write(work, 3)
        await undone.rollback()
        await bench.write(work, 4)
        assert await bench.heard() == []
        await work.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == [1, 2, 4]

    @EACH_KIND
    async def test_an_outer_savepoint_drops_what_an_inner_one_kept(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1)
        outer = await work.savepoint()
        await bench.write(work, 2)
        inner = await work.savepoint()
        await bench.write(work, 3)
        await inner.commit()
        await outer.rollback()
        await work.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == [1]

    @EACH_KIND
    async def test_a_savepoint_may_have_begun_before_anything_was_published(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await work.write(1)
        outer = await work.savepoint()
        inner = await work.savepoint()
        await bench.write(work, 2)
        await inner.commit()
        await bench.write(work, 3)
        await outer.rollback()
        await bench.write(work, 4)
        await work.commit()
        await work.close()

        assert await bench.heard() == [4]
        assert bench.committed() == [1, 4]

    @EACH_KIND
    async def test_a_rollback_drops_what_savepoints_kept(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        savepoint = await work.savepoint()
        await bench.write(work, 1)
        await savepoint.commit()
        await work.rollback()
        await work.close()

        assert await bench.heard() == bench.committed() == []

    @EACH_KIND
    async def test_a_commit_ends_open_savepoints_as_the_database_does(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.write_inside_a_savepoint(work)
        await work.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == [1, 2]
