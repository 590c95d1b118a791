from __future__ import annotations

from pathlib import Path

import pytest

from integration.load.outbox import Plan, run
from integration.load.outbox_verdict import Arrival, out_of_order, unexplained


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)  # seconds; it takes about 15
@pytest.mark.asyncio
async def test_killed_relays_lose_nothing_and_change_no_order(
    rabbitmq: str, postgresql: str, tmp_path: Path
) -> None:
    database = postgresql.replace("postgresql:", "postgresql+asyncpg:", 1)
    verdict = await run(
        Plan(messages=800, kills=3, broker=rabbitmq, database=database, folder=tmp_path)
    )

    assert verdict.wrong == {}, verdict.as_json()
    assert (verdict.messages, verdict.kills) == (800, 3)
    assert verdict.rolled_back > 0
    assert verdict.arrived + verdict.effects == 800


def test_a_message_that_comes_after_its_successor_is_counted() -> None:
    numbers = [1, 3, 2, 3, 4]
    assert out_of_order([Arrival(f"{n}", "a", n, 0.0) for n in numbers]) == 1


def test_a_repeat_is_explained_by_a_kill_in_between_alone() -> None:
    copies = [Arrival("1", "a", 1, at) for at in (100.0, 110.0)]
    assert unexplained(copies, [105.0]) == (1, 0)
    assert unexplained(copies, [111.0, 90.0]) == (1, 1)
