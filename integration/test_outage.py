from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import ConnectionLost
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(240)]

BACK = 60.0  # seconds within which an instance is at work again after the broker's return
DEADLINE = 1.0  # seconds for a publish


@dataclass(frozen=True)
class Outage:
    """A broker at `url` that goes away and comes back."""

    url: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


@pytest_asyncio.fixture(params=[pytest.param("stopped", marks=pytest.mark.own_broker), "cut off"])
async def outage(request: pytest.FixtureRequest) -> AsyncIterator[Outage]:
    """The node is really stopped, or the way to it is cut."""
    if request.param == "stopped":
        server: RabbitServer = request.getfixturevalue("own_rabbitmq_server")

        async def stop() -> None:
            await asyncio.to_thread(server.stop)

        async def start() -> None:
            await asyncio.to_thread(server.start)

        yield Outage(request.getfixturevalue("own_rabbitmq"), stop, start)
        await start()  # no effect on a node that runs; the tests after this one need it
        return
    async with FaultProxy(request.getfixturevalue("rabbitmq")) as proxy:

        async def refuse() -> None:
            proxy.refuse()

        async def resume() -> None:
            proxy.resume()

        yield Outage(proxy.url, refuse, resume)


class Recorder:
    """A handler that remembers, and holds back whoever is told to `wait`."""

    def __init__(self) -> None:
        self.started: list[object] = []
        self.done: list[object] = []
        self.cancelled: list[object] = []
        self.gate = asyncio.Event()

    async def run(self, payload: object) -> None:
        self.started.append(payload)
        try:
            if payload == "wait":
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(payload)
            raise
        self.done.append(payload)


async def is_up(cluster: Cluster) -> None:
    await eventually(lambda: cluster.health()["status"], lambda s: s == "ok", timeout=BACK)


@pytest.mark.asyncio
async def test_publish_ends_in_time_and_all_goes_on_when_the_broker_is_back(
    outage: Outage, cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory(
        url=outage.url, event_queue={"publish_timeout": DEADLINE}, start=False
    )
    recorder = Recorder()
    cluster.event_queue.subscribe("work", recorder.run, concurrency=2)
    await cluster.start()
    await cluster.event_queue.publish("work", "before")
    await cluster.event_queue.publish("work", "wait")
    await cluster.event_queue.publish("later", "stored")
    await eventually(lambda: "before" in recorder.done and "wait" in recorder.started)

    await outage.begin()
    await eventually(lambda: cluster.health()["status"], lambda status: status == "down")
    begun = time.monotonic()
    with pytest.raises(ConnectionLost):
        await cluster.event_queue.publish("work", "during")
    assert DEADLINE * 0.9 <= time.monotonic() - begun < DEADLINE + 2.0
    recorder.gate.set()
    await eventually(lambda: "wait" in recorder.done)

    await outage.end()
    await is_up(cluster)
    await cluster.event_queue.publish("work", "after")
    cluster.event_queue.subscribe("later", recorder.run)
    await eventually(lambda: {"after", "stored"} <= set(recorder.done), timeout=BACK)

    depth = await eventually(lambda: cluster.event_queue.depth("work"), lambda d: d and not d.ready)
    assert depth
    assert depth.dead == 0
    assert recorder.cancelled == []
    # What was running came again, to the instance that knew that only the acknowledgement was lost.
    assert sorted(map(str, recorder.done)) == ["after", "before", "stored", "wait"]


@pytest.mark.asyncio
async def test_a_publish_with_time_left_waits_for_the_broker(
    outage: Outage, cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory(
        url=outage.url, event_queue={"publish_timeout": 120.0}, start=False
    )
    recorder = Recorder()
    cluster.event_queue.subscribe("work", recorder.run)
    await cluster.start()
    await cluster.event_queue.publish("work", "before")

    await outage.begin()
    await eventually(lambda: cluster.health()["status"], lambda status: status == "down")
    async with asyncio.TaskGroup() as group:
        publish = group.create_task(cluster.event_queue.publish("work", "during"))
        await outage.end()
        await publish

    await eventually(lambda: recorder.done == ["before", "during"], timeout=BACK)
