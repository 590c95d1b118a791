from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster_kit.testing.contracts.transactions import (
    KINDS,
    STEPS,
    Bench,
    Environment,
    Features,
    Kind,
    TransactionContract,
    run_program,
)
from cluster_kit.testing.contracts.transactions.programs import Step


def in_file(folder: Path) -> Environment:
    file = folder / "test.db"
    return Environment(f"sqlite:///{file}", f"sqlite+aiosqlite:///{file}")


class TestSqliteTransactions(TransactionContract):
    features = Features(two_phase=False, dooming_errors=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return in_file(request.getfixturevalue("tmp_path"))


@pytest.mark.timeout(300)  # seconds; it takes about 3
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_heard_is_what_was_committed(kind: Kind, tmp_path: Path) -> None:
    numbers = count(1)
    with asyncio.Runner() as runner:
        bench = runner.run(Bench.open(in_file(tmp_path)))

        @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.sampled_from([*STEPS, "publish", "savepoint"]), max_size=12))
        def any_program(steps: list[Step]) -> None:
            heard, committed = runner.run(run_program(bench, kind, steps, numbers))
            assert heard == committed

        try:
            any_program()
        finally:
            runner.run(bench.close())
