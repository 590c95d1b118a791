from __future__ import annotations

from pathlib import Path

import pytest

from cluster_kit.testing.servers import RabbitServer
from integration.load.faults import open_faults
from integration.load.scenario import Plan, run


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)  # seconds; it takes about 20
@pytest.mark.asyncio
async def test_nothing_is_lost_and_only_what_was_in_flight_runs_again(
    rabbitmq: str, rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    async with open_faults(rabbitmq, rabbitmq_server) as faults:
        report = await run(Plan(tasks=2_000, seconds=10.0, folder=tmp_path), faults)

    assert report.good, report.as_json()
    assert report.confirmed >= 2_000
    assert report.connections_lost >= 8
