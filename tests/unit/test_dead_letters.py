from __future__ import annotations

import time

import pytest

from cluster_kit import Cluster, Reject, Settings
from cluster_kit.clock import SystemClock
from cluster_kit.testing.recorder import Recorder, always
from cluster_kit.testing.waiting import eventually

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
