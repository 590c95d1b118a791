from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from integration.load.outbox import Plan, run
from integration.load.outbox_verdict import Arrival, Verdict, judge, out_of_order, unexplained


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


def arrival(id_: str, number: int = 1) -> Arrival:
    return Arrival(id_, "a", number)


def verdict_of(
    arrivals: list[Arrival], *, kills: int = 0, left: dict[str, int] | None = None
) -> Verdict:
    return judge(
        committed={"raw": {copy.id for copy in arrivals}, "effects": set()},
        rolled_back=set(),
        kills=kills,
        left=left or {},
        batch_size=100,
        seconds=1.0,
        arrivals=arrivals,
        effects=Counter(),
        kept_off=0,
    )


def test_a_message_that_comes_after_its_successor_is_counted() -> None:
    numbers = [1, 3, 2, 3, 4]
    assert out_of_order([arrival(f"{n}", n) for n in numbers]) == 1


def test_a_repeat_is_explained_by_a_relay_that_was_killed_with_that_very_message() -> None:
    copies = [arrival("1"), arrival("1")]
    assert unexplained(copies, {"1": 1}) == (1, 0)
    assert unexplained(copies, {"2": 1}) == (1, 1)
    assert unexplained([*copies, arrival("1")], {"1": 1}) == (2, 1)


def test_a_relay_that_sends_all_twice_is_not_excused_by_many_kills() -> None:
    twice = [arrival(f"{n}", n) for n in range(5_000) for _ in range(2)]
    left = {f"{n}": 1 for n in range(0, 5_000, 100)}  # 50 kills, each with a message under way

    assert verdict_of(twice, kills=50, left=left).wrong == {"repeats_without_a_kill": 4_950}


def test_repeats_are_bound_by_kills_and_batches_whatever_explains_them() -> None:
    twice = [arrival(f"{n}", n) for n in range(500) for _ in range(2)]
    left = {f"{n}": 1 for n in range(500)}

    assert verdict_of(twice, kills=5, left=left).wrong == {}
    wrong = verdict_of(twice, kills=3, left=left).wrong
    assert wrong == {"repeats_beyond_a_batch_for_each_kill": 200}
