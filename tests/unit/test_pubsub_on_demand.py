from __future__ import annotations

import asyncio
import threading

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import ConnectError
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.waiting import eventually


def cluster(hub: str) -> Cluster:
    """One whose hub for tasks is its own, and the one for broadcasts that of everybody."""
    return Cluster("shop", settings=Settings(event_queue={"url": f"memory://{hub}"}))


@pytest.mark.asyncio
async def test_who_never_broadcasts_meets_nobody() -> None:
    failed: list[Exception] = []

    async def elsewhere() -> None:
        async with cluster("other") as other:
            await other.event_queue.publish("mails", 1)

    def run() -> None:
        try:
            asyncio.run(elsewhere())
        except Exception as exc:  # noqa: BLE001 - told in the test
            failed.append(exc)

    async with cluster("one") as one:
        assert one.health()["adapters"]["pubsub"]["detail"] == "not used yet"
        await one.pubsub.publish("news", 1)  # takes the hub for this event loop
        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(thread.join, 20)

    assert failed == []


@pytest.mark.asyncio
async def test_the_first_use_connects_and_says_when_it_cannot() -> None:
    outcome: list[str] = []

    async def elsewhere() -> None:
        async with cluster("other") as other:
            with pytest.raises(ConnectError) as refused:
                await other.pubsub.subscribe("news", print)
            outcome.append(str(refused.value))

    async with cluster("one") as one, cluster("two") as two:
        hearer = Hearer()
        await two.pubsub.subscribe("news", hearer.handle)
        await one.pubsub.publish("news", "hello")
        await eventually(lambda: hearer.messages == ["hello"])
        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        await asyncio.to_thread(thread.join, 20)

    assert "another event loop" in outcome[0]
