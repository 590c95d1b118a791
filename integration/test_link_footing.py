"""What befalls a consumer or a whole link without a word, and how long an end of it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import pytest

from cluster_kit.settings.groups import EventQueueValues
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.recorder import Recorder, until
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.fields import short_string
from cluster_kit_amqp.tasks import consumer as consumer_module
from integration.amqp_bench import Bench, Taker, bench

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]

HEARTBEAT = 2  # seconds
LATE = 1.5  # seconds a busy machine may add


# --- a consumer ------------------------------------------------------------------------------


def consuming_channel(made: Bench) -> PlaneChannel:
    session = made.adapter._consumers[0]._intake
    assert session is not None
    return cast("PlaneChannel", session._channel)


def break_the_channel(channel: PlaneChannel) -> None:
    channel._carrier.send(methods.ack(channel.number, 999_999, multiple=False))


def lose_the_consumer(channel: PlaneChannel) -> None:
    """Cancel it, and let the broker not answer: nobody on this side is told."""
    for tag in channel._deliveries._consumers:
        arguments = short_string(tag.decode()) + b"\x01"
        channel._carrier.send(methods.method(channel.number, methods.BASIC_CANCEL, arguments))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(break_the_channel, "unknown delivery tag"), (lose_the_consumer, "knows of no consumer")],
)
async def test_a_consumer_that_is_gone_is_noticed_and_made_again(
    rabbitmq: str,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[PlaneChannel], None],
    reason: str,
) -> None:
    monkeypatch.setattr(consumer_module, "WATCH_INTERVAL", 0.2)
    async with bench(rabbitmq) as made:
        taker, other = Taker(acks=True), Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
        await made.adapter.consume(made.queue("other"), prefetch=3, on_delivery=other)
        harm(consuming_channel(made))
        lost = await eventually(lambda: made.heard("consumer.lost"))
        await made.publish(made.task(), made.task("other"))

        await eventually(lambda: taker.received and other.received)
        await eventually(lambda: made.adapter.health().status == "ok")
        assert reason in str(lost[0]["reason"])
        assert [fields["queue"] for fields in lost] == [made.queue().full]
        assert made.heard("connection.lost") == []


# --- a link ----------------------------------------------------------------------------------


async def test_stopping_on_a_frozen_link_lets_work_finish_and_takes_seconds(
    cluster_factory: ClusterFactory, fault_proxy: FaultProxy
) -> None:
    [cluster] = await cluster_factory(url=fault_proxy.url)
    gate = asyncio.Event()
    running, idle = Recorder(until(gate)), Recorder()
    cluster.event_queue.subscribe("work", running.handle)
    cluster.event_queue.subscribe("idle", idle.handle)
    await cluster.event_queue.publish("work", 1)
    [run] = await running.started()
    fault_proxy.freeze()
    gate.set()
    began = time.monotonic()

    assert await cluster.stop() == []
    assert time.monotonic() - began < 8.0
    assert (run.ended, run.error) == (True, None)


SUSPEND = """
    os:cmd("(kill -STOP " ++ os:getpid() ++ "; sleep 6; kill -CONT " ++ os:getpid() ++
           ") > /dev/null 2>&1 &").
"""


class Publishing:
    """Publishes one task after the other until a connection is lost.

    The last is under way then, and has to be published again.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.ids: list[str] = []
        self.lost_at: list[float] = []
        self.confirmed_at = 0.0
        cluster.telemetry.subscribe(self._observe)

    def _observe(self, event: str, _: Mapping[str, object]) -> None:
        if event == "connection.lost":
            self.lost_at.append(time.monotonic())

    async def run(self) -> None:
        while not self.lost_at:
            self.ids.append(await self._cluster.event_queue.publish("work", "late"))
            if not self.lost_at:
                self.confirmed_at = time.monotonic()
            await asyncio.sleep(0.02)


@pytest.mark.own_broker
@pytest.mark.slow
async def test_a_frozen_broker_is_left_within_two_heartbeats_and_nothing_runs_twice(
    cluster_factory: ClusterFactory, own_rabbitmq: str, own_rabbitmq_server: RabbitServer
) -> None:
    settings = EventQueueValues(url=f"{own_rabbitmq}?heartbeat={HEARTBEAT}", publish_timeout=40)
    [cluster] = await cluster_factory(event_queue=settings)
    gate = asyncio.Event()
    recorder = Recorder(until(gate))
    cluster.event_queue.subscribe("work", recorder.handle, concurrency=5)
    ids = await cluster.event_queue.publish_many("work", range(5))
    await recorder.started(5)
    publishing = Publishing(cluster)
    publishes = asyncio.create_task(publishing.run())
    suspending = asyncio.create_task(asyncio.to_thread(own_rabbitmq_server.ctl, "eval", SUSPEND))
    await eventually(lambda: len(publishing.lost_at) == 2, timeout=30)
    gate.set()  # the handlers end while nothing can be acknowledged
    await recorder.finished(5)
    await publishes
    await suspending

    await eventually(lambda: cluster.health()["status"] == "ok", timeout=30)
    await cluster_factory.settled("work")
    assert max(publishing.lost_at) - publishing.confirmed_at < 2 * HEARTBEAT + LATE
    assert [run.error for run in recorder.runs[:5]] == [None] * 5
    assert sorted(recorder.ids) == sorted(ids + publishing.ids)
