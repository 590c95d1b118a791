from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.broadcast import Broadcast, NeverSent
from cluster_kit.clock import SystemClock
from cluster_kit.errors import ConnectError, ConnectionLost
from cluster_kit.ports import Health, PubSubAdapter
from cluster_kit.pubsub.on_demand import OnDemandPubSub
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


DOWN = "amqp_url: cannot connect to memory://: closed"


class SlowToConnect:
    """Connects when the test lets it, or fails to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.gate = asyncio.Event()
        self.fails = fails
        self.attempts = 0
        self.stored: list[str] = []

    async def connect(self) -> None:
        self.attempts += 1
        await self.gate.wait()
        if self.fails:
            raise ConnectError("memory://", "closed")

    def health(self) -> Health:
        return Health(status="ok", detail="connected", since=0.0)

    async def publish(self, message: Broadcast, *, transport: str, timeout: float) -> None:
        self.stored.append(message.id)


def on_demand(adapter: SlowToConnect) -> OnDemandPubSub:
    return OnDemandPubSub(cast("PubSubAdapter", adapter), SystemClock(), "amqp_url")


def publish(adapter: OnDemandPubSub, number: int) -> asyncio.Task[None]:
    message = Broadcast(realm="pubsub", channel="news", id=str(number), body=b"1")
    return asyncio.create_task(adapter.publish(message, transport="sticky", timeout=1))


@pytest.mark.asyncio
async def test_nobody_overtakes_those_who_wait_for_the_connection() -> None:
    slow = SlowToConnect()
    adapter = OnDemandPubSub(cast("PubSubAdapter", slow), SystemClock(), "amqp_url")
    waiting = [publish(adapter, number) for number in range(5)]
    await eventually(lambda: slow.attempts == 1)
    slow.gate.set()
    for number in range(5, 30):  # some come while the first five are let through
        waiting.append(publish(adapter, number))
        await asyncio.sleep(0)
    await asyncio.wait(waiting)

    assert slow.stored == [str(number) for number in range(30)]
    assert slow.attempts == 1


@pytest.mark.asyncio
async def test_those_who_waited_together_fail_together() -> None:
    slow = SlowToConnect(fails=True)
    adapter = OnDemandPubSub(cast("PubSubAdapter", slow), SystemClock(), "amqp_url")
    waiting = [publish(adapter, number) for number in range(50)]
    await eventually(lambda: slow.attempts == 1)
    slow.gate.set()
    await asyncio.wait(waiting)

    assert all(isinstance(task.exception(), ConnectionLost) for task in waiting)
    assert slow.attempts <= 2
    slow.fails = False
    await publish(adapter, 50)
    assert slow.stored == ["50"]


@pytest.mark.asyncio
async def test_one_whose_first_use_failed_is_down_until_one_succeeds() -> None:
    slow = SlowToConnect(fails=True)
    slow.gate.set()
    adapter = on_demand(slow)
    await asyncio.wait([publish(adapter, 1)])

    first = adapter.health()
    assert (first.status, first.detail) == ("down", DOWN)
    await asyncio.wait([publish(adapter, 2)])
    assert adapter.health() == first  # since the first failure
    slow.fails = False
    await publish(adapter, 3)
    assert adapter.health().detail == "connected"


@pytest.mark.asyncio
async def test_a_publish_cancelled_while_it_connects_says_that_nothing_was_sent() -> None:
    slow = SlowToConnect()
    message = Broadcast(realm="pubsub", channel="news", id="1", body=b"1")
    outcome: list[type[BaseException]] = []

    async def send() -> None:
        try:
            await on_demand(slow).publish(message, transport="sticky", timeout=1)
        except asyncio.CancelledError as exc:
            outcome.append(type(exc))

    sending = asyncio.create_task(send())
    await eventually(lambda: slow.attempts == 1)
    sending.cancel()
    await sending
    assert outcome == [NeverSent]
