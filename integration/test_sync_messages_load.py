from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from integration.load.sync_scenario import Plan, run
from integration.load.sync_verdict import Fate, Verdict

FATE = Fate(name="a", handled=9, repeated=0, missed=0, ordered=True, gaps=0, losses=1, equal=True)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)  # seconds; it takes about 20
@pytest.mark.asyncio
async def test_what_was_committed_is_heard_by_all_whatever_breaks(
    rabbitmq: str, tmp_path: Path
) -> None:
    verdict = await run(Plan(url=rabbitmq, folder=tmp_path, messages=300, instances=3))

    assert verdict.good, verdict
    assert verdict.published >= 300
    assert all(fate.losses >= 4 for fate in verdict.fates)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)  # seconds; it takes about 20
@pytest.mark.asyncio
async def test_exactly_those_who_missed_something_are_told(rabbitmq: str, tmp_path: Path) -> None:
    plan = Plan(url=rabbitmq, folder=tmp_path, messages=400, instances=3, too_short=True)
    verdict = await run(plan)

    assert verdict.good, verdict
    assert [fate.missed > 0 for fate in verdict.fates] == [True, False, True]


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"missed": 1}, False),
        ({"missed": 1, "gaps": 1}, True),
        ({"ordered": False}, False),
        ({"equal": False}, False),
    ],
)
def test_a_broken_promise_is_seen(change: dict[str, int], good: bool) -> None:
    fates = [FATE, replace(FATE, **change)]  # type: ignore[arg-type]
    verdict = Verdict(
        published=9, rolled_back=1, heard_of_rolled_back=0, unpublished=0, fates=fates
    )

    assert verdict.good is good
    assert not replace(verdict, heard_of_rolled_back=1).good


def test_a_gap_without_a_missing_message_counts_where_it_must_be_exact() -> None:
    verdict = Verdict(
        published=9,
        rolled_back=1,
        heard_of_rolled_back=0,
        unpublished=0,
        fates=[replace(FATE, gaps=1)],
    )

    assert verdict.good
    assert not replace(verdict, exact=True).good
