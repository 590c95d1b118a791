from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from integration.load.locks import Plan, run_in_memory, run_processes


@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds; it takes about 30
@pytest.mark.parametrize("backend", ["redis", "memcached", "amqp"])
def test_no_section_is_lost_and_no_two_overlap_while_holders_are_killed_and_stopped(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture = "contract_vhost" if backend == "amqp" else backend
    url = request.getfixturevalue(fixture)
    plan = Plan(backend=backend, processes=4, sections=60)

    outcome = asyncio.run(run_processes(plan, url, tmp_path))

    assert outcome.good, str(outcome)
    assert outcome.faults["stopped"] >= 1
    assert outcome.faults["killed"] >= 1
    assert outcome.book.lost >= 1


def test_no_section_is_lost_in_memory_while_holders_are_cancelled() -> None:
    outcome = asyncio.run(run_in_memory(Plan(backend="memory", processes=4, sections=50)))

    assert outcome.good, str(outcome)
