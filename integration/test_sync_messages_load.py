from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from integration.load.journal import Record
from integration.load.sync_scenario import Plan, run
from integration.load.sync_verdict import Fate, Verdict, fate

FATE = Fate(
    name="a",
    handled=9,
    repeated=0,
    missed=0,
    untold=0,
    ordered=True,
    gaps=0,
    losses=1,
    equal=True,
)


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
        ({"missed": 1, "untold": 1}, False),
        ({"missed": 2, "untold": 1, "gaps": 1}, False),
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


@pytest.mark.parametrize(
    ("journal", "missed", "untold"),
    [
        ("1 2 3 4", 0, 0),
        ("1 gap 3 4", 1, 0),
        ("1 3 gap 4", 1, 0),
        ("1 2 3 gap", 1, 0),
        ("gap 2 3 4", 1, 0),
        ("2 3 4", 1, 1),
        ("gap 1 3 4", 1, 1),
        ("1 gap 3", 2, 1),
        ("1 gap 3 gap", 2, 0),
        ("1 gap 3 1", 2, 1),
        ("gap", 4, 0),
        ("", 4, 4),
    ],
)
def test_a_gap_excuses_nothing_that_was_missed_after_it(
    journal: str, missed: int, untold: int
) -> None:
    records = [
        Record("a", at, "gap") if word == "gap" else Record("a", at, "heard", word)
        for at, word in enumerate(journal.split())
    ]
    seen = fate("a", [*records, Record("b", 9.0, "gap")], [1, 2, 3, 4], {})

    assert (seen.missed, seen.untold) == (missed, untold)


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
