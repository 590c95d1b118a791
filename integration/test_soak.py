from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from integration.load.faults import open_faults
from integration.load.marks import Marks
from integration.load.soak import Plan, soak
from integration.load.soak_report import Result, judged
from integration.load.steady import Steady


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds; it takes about 30
@pytest.mark.asyncio
async def test_closed_connections_lose_nothing_and_leave_nothing_behind(
    rabbitmq: str, tmp_path: Path
) -> None:
    plan = Plan(seconds=20.0, pause=(1.0, 3.0))

    async with open_faults(rabbitmq, None) as faults:  # a proxy closes at once, a broker in seconds
        result = await soak(plan, faults, tmp_path)

    assert result.good, [row for row in result.rows() if row[2] is False]
    assert result.closed >= 5


@pytest.mark.broker
@pytest.mark.asyncio
async def test_a_process_stays_as_large_as_it_was(rabbitmq: str) -> None:
    steady = Steady(1_000)
    await steady.run(rabbitmq)

    assert steady.done == 1_000
    assert [row for row in steady.rows() if row[2] is False] == []


def told(tasks: int, futures: int, *memory: float) -> dict[str, Any]:
    return {"vitals": {"tasks": tasks, "futures": futures}, "memory": memory, "heard": {}}


@pytest.mark.parametrize(
    ("end", "wrong"),
    [
        (told(7, 20, *[30.0] * 100), 0),
        (told(7, 20, *[30.0] * 80, *[60.0] * 20), 1),
        (told(40, 90, *[30.0] * 100), 2),
    ],
    ids=["as before", "more memory", "more tasks and futures"],
)
def test_what_has_grown_is_told(end: dict[str, Any], wrong: int) -> None:
    rows = judged("worker", {"tasks": 7, "futures": 20}, end)

    assert sum(kept is False for _, _, kept in rows) == wrong


def test_a_lost_task_fails_a_soak() -> None:
    kept = Result(
        confirmed=5,
        processed=5,
        again=0,
        lost=[],
        lost_count=0,
        closed=1,
        closed_by="a test",
        seconds=1.0,
        sides=[],
    )

    assert kept.good
    assert not replace(kept, lost=[3], lost_count=1).good


def test_marks_tell_what_is_missing(tmp_path: Path) -> None:
    here, there = Marks(tmp_path / "here", 10), Marks(tmp_path / "there", 10)
    for number in (0, 3, 9):
        here.mark(number)
    for number in (0, 3, 3, 5):
        there.mark(number)

    assert here.missing(there) == [9]
    assert there.missing(here) == [5]
    assert (there.different, there.again) == (3, 1)
    assert Marks(tmp_path / "there", 10).different == 3
