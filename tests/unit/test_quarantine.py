from __future__ import annotations

import asyncio

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.event_queue import quarantine
from cluster_kit.message import Envelope
from cluster_kit.names import QueueName
from cluster_kit.testing.recorder import Recorder, until
from cluster_kit.testing.waiting import eventually
from tests.unit.adapters import Faults

pytestmark = pytest.mark.asyncio


class House:
    """One instance with two channels, of which one may be told to hold its tasks."""

    def __init__(self, hub: str) -> None:
        settings = Settings(event_queue={"url": f"faulty://{hub}", "crash_limit": 10})
        self.cluster = Cluster("shop", settings=settings)
        self.faults = Faults(self.cluster)
        self.go = asyncio.Event()
        self.holding, self.plain = Recorder(until(self.go)), Recorder()
        self.cluster.event_queue.subscribe("held", self.holding.handle, concurrency=4)
        self.cluster.event_queue.subscribe("plain", self.plain.handle, concurrency=4)

    async def put(self, channel: str, name: str, crashes: int) -> None:
        envelope = Envelope(
            queue=QueueName("shop", channel),
            id=name,
            body=b"1",
            content_type="application/json",
            crashes=crashes,
        )
        await self.faults.made[0].publish(envelope, timeout=5)

    async def running(self, channel: str) -> int:
        stats = self.cluster.event_queue.stats().get(channel)
        return 0 if stats is None else stats.running


async def test_a_suspect_begins_when_what_ran_has_ended_and_nothing_begins_beside_it() -> None:
    house = House("alone")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        await house.put("plain", "suspect", 6)
        await eventually(lambda: house.running("plain"), lambda n: n == 1)
        await house.put("plain", "later", 0)
        await house.put("held", "later too", 5)
        depth = house.cluster.event_queue.depth
        await eventually(lambda: depth("held"), lambda found: found is not None and found.ready > 0)
        await asyncio.sleep(quarantine.SETTLING * 2)
        assert house.plain.ids == []

        house.go.set()
        await house.plain.finished(2)
        await house.holding.finished(2)
    assert house.plain.ids == ["suspect", "later"]
    assert house.holding.ids == ["before", "later too"]


async def test_what_was_counted_lets_a_suspect_go_first_that_comes_along_with_it() -> None:
    house = House("first")
    async with house.cluster:
        house.go.set()
        await house.put("held", "counted", 1)
        await house.put("plain", "suspect", 10)
        await house.holding.finished()
        suspect, counted = house.plain.runs[0], house.holding.runs[0]
    assert suspect.delivery.deadline < counted.delivery.deadline


async def test_a_suspect_does_not_wait_for_ever_for_what_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine, "LONGEST_WAIT", 0.1)
    house = House("patient")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        await house.put("plain", "suspect", 6)
        await house.plain.finished()
        house.go.set()


async def test_a_suspect_that_waits_goes_back_when_its_instance_stops() -> None:
    house = House("stopping")
    await house.cluster.start()
    await house.put("held", "before", 0)
    await house.holding.started()
    await house.put("plain", "suspect", 6)
    await eventually(lambda: house.running("plain"), lambda n: n == 1)

    assert await house.cluster.stop(timeout=0) == ["before", "suspect"]
    assert house.plain.runs == []
