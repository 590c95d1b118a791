from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster_kit import Cluster, Reject, Settings
from cluster_kit.clock import SystemClock
from cluster_kit.message import Envelope
from cluster_kit.names import QueueName
from cluster_kit.ports import DeadEntry
from cluster_kit.testing.recorder import Recorder, always
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.event_queue import MemoryEventQueue

pytestmark = pytest.mark.asyncio


async def test_letters_of_an_instance_whose_clock_is_ahead_are_dead_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder(always(Reject("no")))
    async with Cluster("shop", settings=Settings(event_queue={"url": "memory://ahead"})) as cluster:
        letters = cluster.event_queue.dead_letters("mails")
        cluster.event_queue.subscribe("mails", recorder.handle)
        with monkeypatch.context() as patch:
            patch.setattr(SystemClock, "wall", lambda _: time.time() + 3600)
            await cluster.event_queue.publish_many("mails", range(3))
            await eventually(letters.count, lambda count: count == 3)

        assert await letters.replay() == 3
        await eventually(letters.count, lambda count: count == 3)
        assert await letters.discard() == 3
        assert await letters.count() == 0


LOOKS = 10

_read_dead = MemoryEventQueue.read_dead


@asynccontextmanager
async def reading_on(
    adapter: MemoryEventQueue, queue: QueueName
) -> AsyncGenerator[AsyncIterator[DeadEntry]]:
    """Read dead letters as a broker may that has no snapshot: also what dies meanwhile."""

    async def entries() -> AsyncIterator[DeadEntry]:
        for _ in range(LOOKS):
            async with _read_dead(adapter, queue) as found:
                async for entry in found:
                    yield entry
            await asyncio.sleep(0.02)

    yield entries()


@pytest.mark.parametrize("ahead", [0.0, 3600.0])
async def test_a_replay_takes_each_letter_once_though_its_reader_shows_what_dies_meanwhile(
    monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(MemoryEventQueue, "read_dead", reading_on)
    recorder = Recorder(always(Reject("no")))
    settings = Settings(event_queue={"url": f"memory://reading-{ahead}"})
    async with Cluster("shop", settings=settings) as cluster:
        letters = cluster.event_queue.dead_letters("mails")
        await cluster.event_queue.publish_many("mails", range(3))
        bury = MemoryEventQueue.bury

        async def bury_late(self: MemoryEventQueue, envelope: Envelope, *, timeout: float) -> None:
            assert envelope.death is not None
            assert envelope.death.died_at is not None
            death = dataclasses.replace(envelope.death, died_at=envelope.death.died_at + ahead)
            await bury(self, dataclasses.replace(envelope, death=death), timeout=timeout)

        monkeypatch.setattr(MemoryEventQueue, "bury", bury_late)
        cluster.event_queue.subscribe("mails", recorder.handle)
        await eventually(letters.count, lambda count: count == 3)

        assert await letters.replay() == 3
        await recorder.finished(6)
    assert len(recorder.runs) == 6
