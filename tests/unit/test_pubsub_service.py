from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from cluster_kit import Cluster, Plugin, Settings
from cluster_kit.broadcast import Binding, Broadcast, Event
from cluster_kit.errors import ConfigurationError, PublishUnconfirmed, TopologyError
from cluster_kit.ports import AdapterSpec
from cluster_kit.pubsub.stats import OTHERS, Counters
from cluster_kit.pubsub.transports import Transports
from cluster_kit.telemetry import EVENTS
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.hearer import Hearer, holds
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.event_queue import MemoryEventQueue
from tests.unit.pubsub_bench import Instance, Stage


async def handle(_message: object) -> None: ...


# --- transports ---


def test_the_first_pattern_that_fits_decides() -> None:
    chosen = Transports("ephemeral", [("a.b", "stream"), ("a.#", "sticky"), ("#.b", "stream")])

    assert [chosen.of(name) for name in ("a.b", "a", "a.c", "x.b", "x")] == [
        *("stream", "sticky", "sticky", "stream", "ephemeral"),
    ]


@pytest.mark.parametrize(
    ("name", "transports"),
    [
        ("a.b", {"stream"}),
        ("a.*", {"stream", "sticky"}),
        ("a.#", {"stream", "sticky"}),
        ("a.*.c", {"sticky"}),
        ("*.b", {"stream", "sticky", "ephemeral"}),
        ("x.*", {"ephemeral"}),
        ("c", {"ephemeral"}),
        ("#", {"stream", "sticky", "ephemeral"}),
    ],
)
def test_a_pattern_is_bound_wherever_its_channels_may_be(name: str, transports: set[str]) -> None:
    chosen = Transports("ephemeral", [("a.b", "stream"), ("a.#", "sticky")])
    bindings = chosen.bindings("pubsub", name)

    assert {binding.transport for binding in bindings} == transports
    assert {(binding.realm, binding.pattern) for binding in bindings} == {("pubsub", name)}


# --- an adapter that is not as it should be ---


@pytest.mark.asyncio
async def test_a_subscription_the_topology_refuses_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1) as [instance]:
        bound: list[str] = []

        async def bind(binding: Binding) -> None:
            if binding.pattern == "bad":
                raise TopologyError("shop.pubsub", "it is a queue")
            bound.append(binding.pattern)

        monkeypatch.setattr(instance.adapter, "bind", bind)
        with pytest.raises(TopologyError):
            await instance.manager.subscribe("bad", handle)
        await instance.manager.subscribe("good", handle)

        assert bound == ["good"]
        assert list(instance.manager.stats()) == ["good"]


@pytest.mark.asyncio
async def test_a_refusal_concerns_those_alone_who_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1) as [instance]:
        manager, bind = instance.manager, instance.adapter.bind

        async def bind_most(binding: Binding) -> None:
            await asyncio.sleep(0)  # all are asked for while the first is
            if binding.pattern == "bad":
                raise TopologyError("shop.pubsub", "it is a queue")
            await bind(binding)

        monkeypatch.setattr(instance.adapter, "bind", bind_most)
        names = ("first", "good", "bad", "late")
        tasks = [asyncio.create_task(manager.subscribe(name, handle)) for name in names]
        await asyncio.wait(tasks)

        assert [name for name, task in zip(names, tasks, strict=True) if task.exception()] == [
            "bad"
        ]
        assert sorted(manager.stats()) == ["first", "good", "late"]


@pytest.mark.asyncio
async def test_messages_dropped_before_the_last_handler_ended_its_own_task_are_told() -> None:
    async with Stage(1, buffer_size=2) as [instance]:
        gate = asyncio.Event()

        async def react(message: object, _event: Event) -> None:
            await gate.wait()
            if message == 3:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)

        hearer = Hearer(react)
        await instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        instance.receive(1)
        await hearer.begins()
        for seq in range(2, 6):
            instance.receive(seq)
        gate.set()

        assert await hearer.is_told() == [["a"]]
        assert hearer.messages == [1, 2, 3]
        assert instance.manager.troubles() == []


@pytest.mark.asyncio
async def test_a_publish_of_unknown_outcome_keeps_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(2) as (sender, receiver):
        hearer, publish = Hearer(), sender.adapter.publish
        await receiver.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        await sender.manager.publish("a", 1)

        async def vanish(message: Broadcast, **_options: Any) -> None:
            raise PublishUnconfirmed(message.id, "no answer")

        monkeypatch.setattr(sender.adapter, "publish", vanish)
        with pytest.raises(PublishUnconfirmed):
            await sender.manager.publish("a", 2)
        monkeypatch.setattr(sender.adapter, "publish", publish)
        await sender.manager.publish("a", 3)

        assert await hearer.hears(2) == [1, 3]
        assert await hearer.is_told() == [["a"]]
        gap = next(fields for event, fields in receiver.events if event == "broadcast.gap")
        assert "1 of the messages of instance i0" in str(gap["reason"])


@pytest.mark.asyncio
async def test_a_message_that_comes_twice_is_handled_once() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        for seq in (1, 2, 1, 2, 3):
            instance.receive(seq)

        assert await hearer.hears(3) == [1, 2, 3]
        assert instance.manager.stats()["a"].repeated == 2
        assert hearer.gaps == []


@pytest.mark.asyncio
async def test_several_gaps_at_once_are_one_call() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("#", hearer.handle, on_gap=hearer.on_gap)
        for seq in (1, 5):
            for channel in "abc":
                instance.receive(seq, channel)

        assert await hearer.is_told() == [["a", "b", "c"]]
        await hearer.hears(6)


@pytest.mark.asyncio
async def test_a_subscription_closed_from_within_on_gap_ends() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()

        async def leave(channels: list[str]) -> None:
            await subscription.close()
            await hearer.on_gap(channels)

        subscription = await instance.manager.subscribe("a", hearer.handle, on_gap=leave)
        instance.adapter.disconnect()
        instance.adapter.reconnect()

        assert await hearer.is_told() == [["a"]]
        await instance.manager.publish("a", 1, skip_self=False)
        assert hearer.messages == []


@pytest.mark.asyncio
async def test_a_gap_is_not_told_after_the_end() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        subscription = await instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        instance.adapter.disconnect()
        instance.adapter.reconnect()
        await subscription.close()

        await asyncio.sleep(0.3)
        assert hearer.gaps == []


@pytest.mark.asyncio
async def test_every_event_has_the_documented_fields() -> None:
    async with Stage(2, buffer_size=1, publish_timeout=0.05) as (sender, receiver):
        gate = asyncio.Event()
        hearer = Hearer(holds(gate))
        await receiver.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        await sender.manager.publish("a", 1)
        await hearer.begins()
        for _ in range(3):
            await sender.manager.publish("a", 2)
        gate.set()
        await hearer.is_told()

        told: list[tuple[str, Mapping[str, object]]] = [*sender.events, *receiver.events]
        assert {event for event, _ in told} > {"broadcast.dropped", "broadcast.gap"}
        assert [e for e, fields in told if set(fields) != set(EVENTS[e])] == []


def test_names_beyond_the_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster_kit.pubsub.stats.MAX_NAMES", 2)
    counters = Counters()
    for name in ("a", "b", "c", "d", "a"):
        counters.count("broadcast.published", name)

    counts = {name: stats.published for name, stats in counters.snapshot([]).items()}
    assert counts == {"a": 2, "b": 1, OTHERS: 2}


# --- in a cluster ---


class Hearing(Plugin):
    name = "hearing"

    async def handle_sync_message(self, message: object) -> None: ...


def queue_only(cluster: Cluster) -> Cluster:
    spec = AdapterSpec(name="memory", schemes=("memory",), event_queue=MemoryEventQueue)
    cluster.registry.register(spec)
    return cluster


@pytest.mark.asyncio
async def test_without_an_adapter_for_it_an_application_may_do_without() -> None:
    cluster = queue_only(Cluster("shop"))
    text = "^pubsub: adapter 'memory' has none; set CLUSTER_KIT_PUBSUB__URL to one that has$"
    async with cluster:
        assert list(cluster.health()["adapters"]) == ["event_queue"]
        with pytest.raises(ConfigurationError, match=text):
            await cluster.pubsub.publish("a", 1)
        with pytest.raises(ConfigurationError, match=text):
            await cluster.pubsub.subscribe("a", handle)
        with pytest.raises(ConfigurationError, match=r"^sync: adapter 'memory' has none"):
            await cluster.sync_messages.publish("a", 1)


@pytest.mark.parametrize("settings", [{"pubsub": {"url": "memory://"}}, {}])
@pytest.mark.asyncio
async def test_an_application_that_wants_it_does_not_start_without(settings: Any) -> None:
    plugins = [] if settings else [Hearing]
    cluster = queue_only(Cluster("shop", plugins=plugins, settings=Settings(**settings)))

    with pytest.raises(ConfigurationError, match="adapter 'memory' has no"):
        await cluster.start()
    assert cluster.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_subscription_made_before_start_needs_an_adapter_for_it() -> None:
    cluster = queue_only(Cluster("shop"))
    await cluster.pubsub.subscribe("a", handle)

    with pytest.raises(ConfigurationError, match=r"^pubsub: adapter 'memory' has none"):
        await cluster.start()


@pytest.mark.asyncio
async def test_an_island_is_warned_about_where_it_matters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings(
        redis_url="redis://r", event_queue={"url": "memory://here"}, locks={"url": "memory://here"}
    )
    async with Cluster("shop", settings=settings):
        assert "pubsub is on memory://" not in caplog.text
    async with Cluster("shop", settings=settings, plugins=[Hearing]):
        assert "pubsub is on memory:// although the argument redis_url is set" in caplog.text


@pytest.mark.asyncio
async def test_health_knows_of_every_adapter(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    assert list(cluster.health()["adapters"]) == ["event_queue", "pubsub", "locks", "cache"]

    adapter = cluster._capabilities._pubsub_adapter
    adapter.disconnect()  # type: ignore[union-attr]
    assert cluster.health()["status"] == "down"
    adapter.reconnect()  # type: ignore[union-attr]
    await eventually(lambda: cluster.health()["status"] == "ok")


@pytest.mark.asyncio
async def test_a_gap_of_one_transport_excuses_no_hole_in_another() -> None:
    async with Stage(1, transports={"kept": "sticky"}) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("#", hearer.handle, on_gap=hearer.on_gap)

        for channel in ("kept", "passing"):
            instance.receive(1, channel)
        missed = time.monotonic()
        instance.adapter.disconnect()
        instance.adapter.reconnect()
        await hearer.is_told()
        for channel in ("kept", "passing"):
            instance.receive(3, channel, after=time.monotonic() - missed)

        assert await hearer.is_told(2) == [["#"], ["kept"]]


@pytest.mark.asyncio
async def test_a_hole_is_told_to_all_whose_last_messages_may_be_lost_beside_it() -> None:
    async with Stage(1, transports={"kept": "sticky"}) as [instance]:
        here, beside, elsewhere = Hearer(), Hearer(), Hearer()
        for name, hearer in (("a", here), ("b.#", beside), ("kept", elsewhere)):
            await instance.manager.subscribe(name, hearer.handle, on_gap=hearer.on_gap)
        for number in (1, 3):
            instance.receive(number, "a", after=0.0)

        assert await here.is_told() == [["a"]]
        assert await beside.is_told() == [["b.#"]]
        instance.receive(1, "b.c")
        instance.receive(3, "b.c", after=60.0)  # 2 was sent before that was told
        instance.receive(1, "kept")
        await elsewhere.hears()
        stats = instance.manager.stats()
        assert [stats[name].gaps for name in ("a", "b.#", "kept")] == [1, 1, 0]


@pytest.mark.asyncio
async def test_a_hole_before_what_a_new_subscription_hears_first_is_no_gap_of_it() -> None:
    async with Stage(1) as [instance]:
        pattern, fresh = Hearer(), Hearer()
        before = await instance.manager.subscribe("#", pattern.handle)
        instance.receive(1, "a")
        await instance.manager.subscribe("a", fresh.handle, on_gap=fresh.on_gap)
        await before.close()
        instance.receive(3, "a", after=0.0)  # 2 may have been sent before this one was bound
        await fresh.hears()
        assert instance.manager.stats()["a"].gaps == 0

        instance.receive(5, "a", after=0.0)
        assert await fresh.is_told() == [["a"]]


@pytest.mark.asyncio
async def test_a_told_gap_excuses_what_was_sent_before_it_and_nothing_later() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        instance.receive(1)
        instance.adapter.disconnect()
        instance.adapter.reconnect()
        assert await hearer.is_told() == [["a"]]

        instance.receive(5, after=60.0)  # 4 was sent a minute ago: that is the gap told
        instance.receive(5, epoch="f", origin="third", after=0.0)
        await hearer.hears(3)
        assert instance.manager.stats()["a"].gaps == 1

        instance.receive(8, after=0.0)  # 7 was sent when the link was there
        assert await hearer.is_told(2) == [["a"], ["a"]]


@pytest.mark.asyncio
async def test_a_gap_that_another_subscription_was_told_of_excuses_nothing_here() -> None:
    async with Stage(1, transport="sticky") as [instance]:
        late, early = Hearer(), Hearer()
        await instance.manager.subscribe("#", early.handle, on_gap=early.on_gap)
        instance.receive(1)
        instance.adapter.disconnect()
        await instance.manager.subscribe("a", late.handle, on_gap=late.on_gap)
        missed = time.monotonic()
        instance.adapter.reconnect()
        assert await late.is_told() == [["a"]]

        instance.receive(3, after=time.monotonic() - missed)

        assert await early.is_told() == [["a"]]
        assert late.gaps == [["a"]]


@pytest.mark.asyncio
async def test_what_was_sent_before_a_subscription_is_missing_to_those_before_it_alone() -> None:
    async with Stage(1) as [instance]:
        early, late = Hearer(), Hearer()
        await instance.manager.subscribe("#", early.handle, on_gap=early.on_gap)
        instance.receive(1)
        missed = time.monotonic()
        await instance.manager.subscribe("a", late.handle, on_gap=late.on_gap)

        instance.receive(3, after=time.monotonic() - missed)  # 2 was sent before the second
        instance.receive(5, after=0.0)

        assert await late.is_told() == [["a"]]
        assert await early.is_told() == [["a"]]
        stats = instance.manager.stats()
        assert (stats["#"].gaps, stats["a"].gaps) == (2, 1)


@pytest.mark.asyncio
async def test_what_is_missing_while_a_subscribe_waits_for_the_broker_is_no_gap_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1) as [instance]:
        hearer, gate, bind = Hearer(), asyncio.Event(), instance.adapter.bind

        async def slowly(binding: Binding) -> None:
            await gate.wait()
            await bind(binding)

        monkeypatch.setattr(instance.adapter, "bind", slowly)
        subscribing = asyncio.create_task(
            instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        )
        await asyncio.sleep(0)
        for number in (1, 3):
            instance.receive(number, after=0.0)
        gate.set()
        await subscribing

        assert await hearer.hears(2) == [1, 3]
        assert instance.manager.stats()["a"].gaps == 0


@pytest.mark.asyncio
async def test_a_forged_number_silences_nobody() -> None:
    async with Stage(2) as (sender, receiver):
        hearer = Hearer()
        await receiver.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        await sender.manager.publish("a", 1)
        await hearer.hears()
        epoch = sender.manager._numbering._counters["a"].epoch
        receiver.receive(2**62, origin="i0", epoch=epoch)
        for number in range(2, 6):
            await sender.manager.publish("a", number)

        assert await hearer.hears(6) == [1, 2**62, 2, 3, 4, 5]
        assert await hearer.is_told() == [["a"]]
        assert receiver.manager.stats()["a"].repeated == 0


@pytest.mark.asyncio
async def test_malformed_metadata_is_counted() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("a", hearer.handle)
        instance.receive(0, malformed=("ck-seq",))
        instance.receive(1)

        assert await hearer.hears(2) == [0, 1]
        assert instance.manager.stats()["a"].malformed == 1


# --- two processes with one instance id ---


TWIN = "another living process has instance id 'i0' too"


class Twins(Stage):
    """Two processes with one instance id."""

    def __init__(self) -> None:
        super().__init__(1)
        self.instances.append(Instance("i0", self.url))


@pytest.mark.asyncio
async def test_twins_hear_each_other_without_gaps_and_are_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Twins() as (one, two):
        hearers = Hearer(), Hearer()
        for instance, hearer in zip((one, two), hearers, strict=True):
            await instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        assert (one.manager.troubles(), two.manager.troubles()) == ([], [])
        for number in range(5):
            await one.manager.publish("a", number)
            await two.manager.publish("a", -number)

        assert await hearers[0].hears(5) == [0, -1, -2, -3, -4]
        assert await hearers[1].hears(5) == [0, 1, 2, 3, 4]
        assert [hearer.gaps for hearer in hearers] == [[], []]
        for instance in (one, two):
            [trouble] = instance.manager.troubles()
            assert trouble.startswith(TWIN)
            assert [event for event, _ in instance.events].count("broadcast.twin") == 1
        assert caplog.text.count(TWIN) == 2


@pytest.mark.asyncio
async def test_a_message_for_the_publisher_alone_is_not_for_its_twin() -> None:
    async with Twins() as (one, two):
        hearers = Hearer(), Hearer()
        for instance, hearer in zip((one, two), hearers, strict=True):
            await instance.manager.subscribe("a", hearer.handle)
        await one.manager.publish("a", "self", only_self=True)
        await one.manager.publish("a", "all", skip_self=False)

        assert await hearers[0].hears(2) == ["self", "all"]
        assert await hearers[1].hears() == ["all"]


@pytest.mark.asyncio
async def test_what_a_former_process_sent_is_no_twin() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("a", hearer.handle)
        instance.receive(7, origin="i0", epoch="former.1", published_at=time.time() - 5)
        instance.receive(8, origin="i0", epoch="former.1")
        await instance.manager.publish("a", 9, skip_self=False)
        await instance.close()
        await instance.open()
        await instance.manager.publish("a", 10, skip_self=False)

        assert await hearer.hears(4) == [7, 8, 9, 10]
        assert instance.manager.troubles() == []


@pytest.mark.asyncio
async def test_a_twin_that_is_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Twins() as (one, two):
        hearer = Hearer()
        await one.manager.subscribe("a", hearer.handle)
        await two.manager.publish("a", 1)
        await hearer.hears()
        assert len(one.manager.troubles()) == 1

        monkeypatch.setattr("cluster_kit.pubsub.twins.MEMORY", 0.0)
        assert one.manager.troubles() == []


@pytest.mark.asyncio
async def test_what_another_instance_sends_for_this_one_is_its_own() -> None:
    async with Stage(2) as (origin, relay):
        hearer = Hearer()
        await origin.manager.subscribe("a", hearer.handle)
        for option in ({}, {"only_self": True}):
            await relay.manager.outlet.send(origin.manager.outlet.prepare("a", 1, **option))

        assert await hearer.hears() == [1]
        assert origin.manager.troubles() == []


# --- together ---


@pytest.mark.asyncio
async def test_a_second_subscribe_of_a_pair_waits_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1) as [instance]:
        gate, bind = asyncio.Event(), instance.adapter.bind

        async def slow(binding: Binding) -> None:
            await gate.wait()
            await bind(binding)

        monkeypatch.setattr(instance.adapter, "bind", slow)
        both = [asyncio.ensure_future(instance.manager.subscribe("a", handle)) for _ in range(2)]
        await asyncio.wait(both, timeout=0.05)
        assert not any(task.done() for task in both)
        gate.set()

        first, second = await asyncio.gather(*both)
        assert first is second


@pytest.mark.asyncio
async def test_a_second_subscribe_of_a_pair_does_not_inherit_the_firsts_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1) as [instance]:
        gate, bind, fails = asyncio.Event(), instance.adapter.bind, [True]

        async def fail_once(binding: Binding) -> None:
            await gate.wait()
            if fails.pop() if fails else False:
                raise TopologyError("shop.pubsub", "it is a queue")
            await bind(binding)

        monkeypatch.setattr(instance.adapter, "bind", fail_once)
        hearer = Hearer()
        both = [
            asyncio.ensure_future(instance.manager.subscribe("a", hearer.handle)) for _ in range(2)
        ]
        await asyncio.wait(both, timeout=0.05)
        gate.set()
        first, _second = await asyncio.gather(*both, return_exceptions=True)

        assert isinstance(first, TopologyError)
        await instance.manager.publish("a", 1, skip_self=False)
        assert await hearer.hears() == [1]


@pytest.mark.asyncio
async def test_an_unsubscribe_during_a_subscribe_that_fails_hides_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1) as [instance]:
        gate = asyncio.Event()

        async def fail(_binding: Binding) -> None:
            await gate.wait()
            raise TopologyError("shop.pubsub", "it is a queue")

        monkeypatch.setattr(instance.adapter, "bind", fail)
        subscribing = asyncio.ensure_future(instance.manager.subscribe("a", handle))
        await asyncio.sleep(0)
        leaving = asyncio.ensure_future(instance.manager.unsubscribe("a", handle))
        await asyncio.sleep(0)
        gate.set()

        with pytest.raises(TopologyError):
            await subscribing
        await leaving
        assert instance.manager.stats() == {}


@pytest.mark.asyncio
async def test_whoever_closes_a_subscription_finds_its_last_call_ended() -> None:
    async with Stage(1) as [instance]:
        gate = asyncio.Event()
        hearer = Hearer(holds(gate))
        subscription = await instance.manager.subscribe("a", hearer.handle)
        await instance.manager.publish("a", 1, skip_self=False)
        await hearer.begins()
        closers = [asyncio.ensure_future(subscription.close()) for _ in range(2)]
        closers.append(asyncio.ensure_future(instance.manager.unsubscribe("a", hearer.handle)))
        await asyncio.wait(closers, timeout=0.05)
        assert [closer.done() for closer in closers[:2]] == [False, False]
        gate.set()

        await asyncio.gather(*closers)
        assert hearer.ended == 1


@pytest.mark.asyncio
async def test_a_subscribe_that_fails_in_part_leaves_nothing_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Stage(1, transports={"kept": "sticky"}) as [instance]:
        bound: list[str] = []

        async def bind(binding: Binding) -> None:
            if binding.transport == "sticky":
                raise TopologyError("shop.pubsub", "it is a queue")
            bound.append(binding.transport)

        async def unbind(binding: Binding) -> None:
            bound.remove(binding.transport)

        monkeypatch.setattr(instance.adapter, "bind", bind)
        monkeypatch.setattr(instance.adapter, "unbind", unbind)
        with pytest.raises(TopologyError):
            await instance.manager.subscribe("#", handle)

        assert bound == []


@pytest.mark.asyncio
async def test_a_gap_whose_on_gap_was_taken_back_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        await instance.manager.subscribe("a", hearer.handle, on_gap=hearer.on_gap)
        instance.adapter.disconnect()
        instance.adapter.reconnect()
        await instance.manager.subscribe("a", hearer.handle)

        await eventually(lambda: "messages on a may be missing: the link" in caplog.text)
        assert hearer.gaps == []


@pytest.mark.asyncio
async def test_an_on_gap_that_ends_its_own_task_takes_no_later_gap_with_it() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()

        async def on_gap(channels: list[str]) -> None:
            await hearer.on_gap(channels)
            if len(hearer.gaps) == 1:
                instance.adapter.disconnect()
                instance.adapter.reconnect()
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)

        await instance.manager.subscribe("a", hearer.handle, on_gap=on_gap)
        instance.adapter.disconnect()
        instance.adapter.reconnect()

        assert await hearer.is_told(2) == [["a"], ["a"]]


@pytest.mark.asyncio
async def test_a_handler_that_ends_its_own_task_takes_no_waiting_message_with_it() -> None:
    async with Stage(1) as [instance]:
        gate = asyncio.Event()

        async def end_the_task(message: object, _event: Event) -> None:
            await gate.wait()
            if message == 0:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)

        hearer = Hearer(end_the_task)
        await instance.manager.subscribe("a", hearer.handle)
        for number in range(3):
            await instance.manager.publish("a", number, skip_self=False)
        gate.set()

        assert await hearer.hears(3) == [0, 1, 2]


@pytest.mark.asyncio
async def test_closing_a_subscription_leaves_no_task() -> None:
    async with Stage(1) as [instance]:
        hearer = Hearer()
        subscription = await instance.manager.subscribe("a", hearer.handle, debounce=60)
        await instance.manager.publish("a", 1, skip_self=False)
        assert instance.supervisor._tasks

        await subscription.close()

        await eventually(lambda: not instance.supervisor._tasks)
        assert instance.manager.stats()["a"].waiting == 0
