from __future__ import annotations

from typing import Any

import pytest

from cluster_kit import Cluster, Plugin
from cluster_kit.broadcast import Audience, Broadcast
from cluster_kit.errors import (
    AlreadyStartedError,
    ConfigurationError,
    EncodeError,
    NotStartedError,
)
from cluster_kit.ports import AdapterContext, Health
from cluster_kit.pubsub.following import REPEATED, Follower
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

STEPS: list[str] = []


class Noting:
    """An extension that notes what is done with it, and fails as it is told."""

    def __init__(self, name: str, *failing: str) -> None:
        self.name = name
        self.timeouts: list[float] = []
        self._failing = failing

    async def start(self, context: AdapterContext) -> None:
        self._note("start")

    async def stop(self, timeout: float) -> None:
        self.timeouts.append(timeout)
        self._note("stop")

    def health(self) -> Health:
        return Health(status="degraded", detail="half of it", since=0.0)

    def _note(self, step: str) -> None:
        STEPS.append(f"{step} {self.name}")
        if step in self._failing:
            raise ValueError(f"{self.name} cannot {step}")


class Loading(Plugin):
    name = "plugin"

    async def load(self) -> None:
        STEPS.append("load plugin")

    async def before_stop(self) -> None:
        STEPS.append("stop plugin")


@pytest.fixture(autouse=True)
def _no_steps() -> None:
    STEPS.clear()


class Other(Noting): ...


@pytest.mark.asyncio
async def test_extensions_start_before_plugins_and_stop_after_them() -> None:
    cluster = Cluster("shop", plugins=[Loading])
    for name in ("first", "second"):
        cluster.extend(Noting(name))

    for _ in range(2):
        async with cluster:
            pass

    up = ["start first", "start second", "load plugin"]
    assert [*up, "stop plugin", "stop second", "stop first"] * 2 == STEPS


@pytest.mark.asyncio
async def test_an_extension_that_does_not_start_is_stopped_with_those_before_it() -> None:
    cluster = Cluster("shop", plugins=[Loading])
    for extension in (Noting("good"), Noting("bad", "start", "stop"), Noting("never")):
        cluster.extend(extension)

    with pytest.raises(ValueError, match="bad cannot start"):
        await cluster.start()

    assert STEPS == ["start good", "start bad", "stop bad", "stop good"]


@pytest.mark.asyncio
async def test_extensions_are_told_how_long_they_have_and_have_a_second_at_least() -> None:
    cluster, noting = Cluster("shop"), Noting("mine")
    cluster.extend(noting)

    for timeout in (60.0, 0.0):
        await cluster.start()
        await cluster.stop(timeout=timeout)

    ample, least = noting.timeouts
    assert 50 < ample <= 60
    assert least == 1.0


@pytest.mark.asyncio
async def test_health_has_extensions_while_they_run() -> None:
    cluster = Cluster("shop")
    cluster.extend(Noting("mine"))
    assert "mine" not in cluster.health()["adapters"]

    async with cluster:
        health = cluster.health()

    assert health["status"] == "degraded"
    assert health["adapters"]["mine"]["detail"] == "half of it"


@pytest.mark.asyncio
async def test_an_extension_is_added_once_and_before_start() -> None:
    cluster = Cluster("shop")
    cluster.extend(Noting("mine"))
    with pytest.raises(ConfigurationError, match="given a second Noting named 'mine'; make one"):
        cluster.extend(Noting("mine"))
    with pytest.raises(ConfigurationError, match="given Noting and Other, both named 'mine'"):
        cluster.extend(Other("mine"))
    async with cluster:
        with pytest.raises(AlreadyStartedError):
            cluster.extend(Noting("late"))


@pytest.mark.asyncio
async def test_what_one_instance_made_another_sends(cluster_factory: ClusterFactory) -> None:
    maker, *others = await cluster_factory(3, start=False)
    recorder, hearers = Recorder(), [Hearer() for _ in range(3)]
    for cluster, hearer in zip([maker, *others], hearers, strict=True):
        await cluster.sync_messages.subscribe("sources", hearer.handle, on_gap=hearer.on_gap)
    maker.event_queue.subscribe("mails", recorder.handle)
    envelope, delay = maker.outlets.tasks.prepare("mails", 1, delay=0.01, max_retries=9)
    made = [maker.outlets.sync_messages.prepare("sources", number) for number in range(3)]
    with pytest.raises(NotStartedError):
        await maker.outlets.tasks.send(envelope, delay)
    for cluster in (maker, *others):
        await cluster.start()

    await others[0].outlets.tasks.send(envelope, delay)
    await others[1].sync_messages.publish("sources", "its own")
    for number, message in enumerate(made):
        await others[number % 2].outlets.sync_messages.send(message)
        await maker.sync_messages.publish("sources", f"direct {number}")

    [run] = await recorder.finished()
    assert (run.delivery.id, run.delivery.max_retries) == (envelope.id, 9)
    await eventually(lambda: [len(hearer.heard) for hearer in hearers] == [1, 7, 6])
    assert [hearer.gaps for hearer in hearers] == [[], [], []]
    told = [heard.event for heard in hearers[1].heard if heard.message in range(3)]
    assert {event.origin for event in told} == {maker.instance_id}


def test_what_is_prepared_is_checked_then() -> None:
    outlets = Cluster("shop").outlets
    with pytest.raises(EncodeError):
        outlets.tasks.prepare("mails", {1: 2})
    with pytest.raises(ConfigurationError, match="nobody"):
        outlets.pubsub.prepare("mails", 1, skip_self=True, only_self=True)
    assert outlets.pubsub.prepare("mails", 1, only_self=True).audience is Audience.SELF


def test_an_option_nobody_knows_is_refused_when_it_is_prepared() -> None:
    tasks: Any = Cluster("shop").outlets.tasks
    its = "delay, headers, max_retries, {}shared, timeout, ttl"
    with pytest.raises(TypeError) as caught:
        tasks.prepare("mails", 1, dealy=1)
    text = "prepare() got an unexpected keyword argument 'dealy', it takes "
    assert str(caught.value) == text + its.format("message_id, ")
    with pytest.raises(TypeError) as caught:
        tasks.prepare_many("mails", [1], message_id="order-17")
    text = "prepare_many() got an unexpected keyword argument 'message_id', it takes "
    assert str(caught.value) == text + its.format("")


def test_numbers_are_those_of_the_sender() -> None:
    follower = Follower()

    def missing(sender: str, epoch: str, seq: int) -> int:
        message = Broadcast(
            realm="sync", channel="c", id="i", body=b"", origin="a", sender=sender, epoch=epoch,
            seq=seq,
        )  # fmt: skip
        return follower.missing(message)

    assert [missing("", "x", 1), missing("b", "y", 5), missing("", "x", 2)] == [0, 0, 0]
    assert [missing("b", "y", 6), missing("b", "y", 6), missing("b", "y", 9)] == [0, REPEATED, 2]
    assert missing("", "x", 4) == 1
