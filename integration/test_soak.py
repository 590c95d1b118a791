from __future__ import annotations

from pathlib import Path

import pytest

from integration.load.faults import open_faults
from integration.load.marks import Marks
from integration.load.soak import Plan, soak


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
