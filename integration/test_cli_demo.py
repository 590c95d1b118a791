from __future__ import annotations

import asyncio

import pytest

from cluster_kit.cli.demo.promises import PROMISES
from cluster_kit.cli.demo.settings import APP, demo_settings
from cluster_kit.cluster import Cluster
from cluster_kit.testing.waiting import eventually
from tests.cli.support import Outcome, run_command

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]


def test_every_promise_is_proved_by_processes_on_a_broker(rabbitmq: str) -> None:
    outcome = run_command("demo", "--instances", "2", "--url", rabbitmq, "--json")

    assert outcome.code == 0, f"{outcome.err}\n{outcome.out}"
    assert [row["promise"] for row in outcome.json] == [promise.text for promise in PROMISES]
    assert all(row["proved"] for row in outcome.json)
    assert outcome.err.startswith("2 instances, processes on amqp://")

    # It leaves nothing behind but empty queues.
    left = run_command("queues", "--app", "cluster-kit-demo", "--url", rabbitmq, "--json").json
    assert {(queue["ready"], queue["dead"], queue["consumers"]) for queue in left} == {(0, 0, 0)}


def test_a_second_demo_on_one_broker_is_refused(rabbitmq: str) -> None:
    async def beside_another() -> Outcome:
        async def handle(payload: object) -> None: ...

        async with Cluster(APP, settings=demo_settings(rabbitmq, None)) as other:
            other.event_queue.subscribe("share", handle)
            await eventually(
                lambda: other.event_queue.depth("share"), lambda depth: depth and depth.consumers
            )
            return await asyncio.to_thread(run_command, "demo", "--url", rabbitmq)

    outcome = asyncio.run(beside_another())

    assert (outcome.code, outcome.out) == (1, "")
    line = "cluster-kit: another demo is running on this broker, as 'cluster-kit-demo'"
    assert outcome.err.splitlines()[-1] == line
