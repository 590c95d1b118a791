"""Publish and subscribe on RabbitMQ, the parts that need no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from cluster_kit.broadcast import TRANSPORTS, Audience, Broadcast
from cluster_kit.errors import ConnectionLost, PublishRefused, PublishUnconfirmed, TopologyError
from cluster_kit.ports import AdapterContext, BroadcastLimits
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.broadcast.line import Line, Means, PendingPublish
from cluster_kit_amqp.broadcast.names import (
    exchange_name,
    own_queue,
    sticky_arguments,
    stream_steps,
)
from cluster_kit_amqp.broadcast.wire import to_broadcast, to_message
from cluster_kit_amqp.connection.publishing_channel import Progress, PublishingChannel, State
from cluster_kit_amqp.link import ChannelDown, Incoming, LinkDown, LinkError, Message, Nacked
from cluster_kit_amqp.topology import Queue

BROADCAST = Broadcast(
    realm="sync",
    channel="prices.changed",
    id="a-message",
    body=b"17",
    content_type="application/json",
    published_at=1_700_000_000.125,
    origin="instance-1",
    epoch="0123abcd",
    seq=2**40,
    after=1.25,
    audience=Audience.OTHERS,
)


def context(**more: Any) -> AdapterContext:
    return AdapterContext(
        app="shop",
        instance_id="instance-1",
        tasks=Supervisor(),
        emit=Telemetry().emit,
        **more,
    )


def arrived(key: str = "prices.changed", **fields: Any) -> Incoming:
    return Incoming(message=Message(**({"body": b"1"} | fields)), tag=1, redelivered=False, key=key)


# --- wire ---


@pytest.mark.parametrize("sender", ["", "instance-2"])
@pytest.mark.parametrize("audience", Audience)
def test_a_broadcast_arrives_as_it_was_sent(audience: Audience, sender: str) -> None:
    sent = Broadcast(**{**_fields(BROADCAST), "audience": audience, "sender": sender})
    message = to_message(sent, "sticky", copy_id="copy", app="shop")

    incoming = Incoming(message=message, tag=1, redelivered=False, key=sent.channel)
    assert to_broadcast(incoming, "sync") == sent
    assert (message.message_id, message.app_id) == ("copy", "shop")


def _fields(broadcast: Broadcast) -> dict[str, Any]:
    return {name: getattr(broadcast, name) for name in Broadcast.__slots__}


def test_what_is_not_kept_need_not_outlive_the_broker() -> None:
    kept = {
        transport: to_message(BROADCAST, transport, copy_id="c", app="shop").persistent
        for transport in TRANSPORTS
    }
    assert kept == {"ephemeral": False, "sticky": True, "stream": True}


MALFORMED: tuple[Mapping[str, object], ...] = (
    {"ck-seq": 5},
    {"ck-seq": 2**63, "ck-origin": "i", "ck-epoch": "e"},
    {"ck-seq": 5.5, "ck-origin": "i", "ck-epoch": "e"},
    {"ck-seq": 5, "ck-origin": "i"},
    {"ck-seq": True, "ck-origin": "i", "ck-epoch": "e"},
    {"ck-seq": -1, "ck-origin": "i", "ck-epoch": "e"},
    {"ck-seq": "5", "ck-origin": "i", "ck-epoch": "e"},
    {"ck-seq": 5, "ck-origin": "x" * 300, "ck-epoch": "e"},
    {"ck-seq": 5, "ck-origin": ["i"], "ck-epoch": "e", "ck-to": {"all": True}},
    {"ck-to": "nobody", "ck-id": "a b", "ck-published-at": 10**20, "ck-after-ms": -1},
)


@pytest.mark.parametrize("headers", MALFORMED)
def test_malformed_metadata_counts_as_missing(headers: Mapping[str, object]) -> None:
    found = to_broadcast(arrived(headers=headers), "pubsub")

    assert (found.seq, found.audience, found.published_at) == (0, Audience.ALL, None)
    assert found.channel == "prices.changed"
    assert found.after == 0
    assert len(found.id) == 32
    assert set(found.malformed) <= set(headers)
    assert found.malformed


def test_what_is_not_there_is_not_malformed() -> None:
    headers = {"ck-origin": "i", "ck-epoch": "e"}
    assert to_broadcast(arrived(headers=headers), "pubsub").malformed == ()


def test_a_foreign_message_has_its_own_id_and_time() -> None:
    found = to_broadcast(arrived(message_id="theirs", timestamp=1.7e9), "pubsub")
    assert (found.id, found.published_at, found.content_type) == ("theirs", 1.7e9, None)
    assert found.id_is_stable


def test_a_message_without_an_id_has_another_at_each_delivery() -> None:
    first, second = (to_broadcast(arrived(), "pubsub") for _ in range(2))

    assert first.id != second.id
    assert [first.id_is_stable, second.id_is_stable] == [False, False]


# --- names ---


def test_names_of_own_queues_fit_and_never_come_again() -> None:
    long = context()
    object.__setattr__(long, "instance_id", "ä" * 200)
    names = {own_queue("keep", long) for _ in range(100)}
    assert len(names) == 100
    assert max(len(name.encode()) for name in names) <= 255
    assert own_queue("sub", context()).startswith("ck.v1.sub.shop.instance-1.")


def test_limits_become_arguments() -> None:
    limits = BroadcastLimits(sticky_expires=1.5, sticky_max_messages=7, stream_max_age=1.5)
    assert sticky_arguments(limits)["x-expires"] == 1500
    assert sticky_arguments(limits)["x-max-length"] == 7
    [stream] = [step for step in stream_steps("shop", "sync", limits) if isinstance(step, Queue)]
    assert stream.name == "ck.v1.stream.shop.sync"
    assert stream.arguments["x-max-age"] == "2s"
    assert exchange_name("shop", "sync", "stream") == "shop.sync.stream"


# --- lines ---


class FakeLink:
    """A link and its only channel at a time; what is sent is answered by the test."""

    def __init__(self) -> None:
        self.blocked: str | None = None
        self.open = True
        self.sent: list[tuple[str, asyncio.Future[None]]] = []
        self._closed: list[Any] = []

    async def open_channel(self, *, confirms: bool = False) -> FakeLink:
        assert confirms
        await asyncio.sleep(0.01)
        self.open = True
        return self

    def on_closed(self, callback: Any) -> None:
        self._closed.append(callback)

    def send(self, exchange: str, key: str, message: Message) -> asyncio.Future[None]:
        assert self.open
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append((message.body.decode(), future))
        return future

    def confirm(self, *bodies: str) -> None:
        for body, future in self.sent:
            if body in bodies and not future.done():
                future.set_result(None)

    def fail(self, error: LinkError) -> None:
        self.open = False
        closed, self._closed = self._closed, []
        for callback in closed:
            callback(error.reason)
        for _, future in self.sent:
            if not future.done():
                future.set_exception(error)

    @property
    def bodies(self) -> list[str]:
        return [body for body, _ in self.sent]


class FakeMeans:
    """A connection that has the link it is given, and a declarer that is content or is not."""

    def __init__(self) -> None:
        self.link: FakeLink | None = FakeLink()
        self.generation = 1
        self.error: TopologyError | None = None
        self.settled = True
        given = context()
        self.line = Line(
            "x",
            (),
            Means(
                connection=cast("Any", self),
                declarer=cast("Any", self),
                outlet=PublishingChannel(cast("Any", self), given),
                context=given,
            ),
        )

    async def writable(self) -> FakeLink:
        await eventually(lambda: self.link)
        return self.current

    def is_settled(self, link: object, name: str) -> bool:
        return self.settled and self.error is None

    async def ensure(self, link: object, name: str, steps: object) -> None:
        if self.error is not None:
            raise self.error
        self.settled = True

    def forget(self, name: str) -> None:
        self.settled = False

    def put(self, body: str, size: int = 1, *, key: str = "key") -> PendingPublish:
        return self.line.put(key, Message(body=body.encode()), Progress(body, "x", size, 0.0))

    async def nack(self, *bodies: str) -> None:
        """Answer what was sent last that a queue did not take it, and let that be heard."""
        last = dict(self.current.sent)
        for body in bodies:
            last[body].set_exception(Nacked("a queue went away"))
        await asyncio.sleep(0)

    @property
    def current(self) -> FakeLink:
        assert self.link is not None
        return self.link


@pytest.mark.asyncio
async def test_after_a_loss_what_is_unconfirmed_goes_first_in_its_order() -> None:
    means = FakeMeans()
    old = means.current
    parcels = [means.put(body) for body in "abcd"]
    await eventually(lambda: old.bodies == ["a", "b", "c", "d"])
    old.confirm("b")
    await asyncio.sleep(0)
    means.link = FakeLink()
    old.fail(LinkDown("cut"))
    parcels.append(means.put("e"))

    await eventually(lambda: means.current.bodies == ["a", "c", "d", "e"])
    assert [pending.progress.unknown for pending in parcels] == [True, False, True, True, False]
    means.current.confirm(*"acde")
    for pending in parcels:
        await pending.done
    assert {pending.progress.state for pending in parcels} == {State.CONFIRMED}


@pytest.mark.asyncio
async def test_who_gave_up_is_not_sent_again() -> None:
    means = FakeMeans()
    old, means.link = means.current, None
    first, second = means.put("a"), means.put("b")
    first.done.cancel()
    means.link = old

    await eventually(lambda: old.bodies == ["b"])
    old.confirm("b")
    await second.done


@pytest.mark.asyncio
async def test_what_one_queue_did_not_take_is_sent_again_and_its_outcome_is_unknown() -> None:
    means = FakeMeans()
    pending = means.put("a")
    for turn in range(1, 5):
        await eventually(lambda: len(means.current.sent), turn.__eq__)
        means.current.sent[-1][1].set_exception(Nacked("a queue went away"))
    await asyncio.sleep(0)
    means.put("b")

    await eventually(lambda: means.current.bodies, ["a", "a", "a", "a", "a", "b"].__eq__)
    assert pending.progress.unknown
    means.current.confirm("a")
    await pending.done


@pytest.mark.asyncio
async def test_what_one_queue_did_not_take_holds_back_its_own_channel_alone() -> None:
    means = FakeMeans()
    parcels = [means.put("a1", key="a"), means.put("a2", key="a")]
    await eventually(lambda: means.current.bodies, ["a1", "a2"].__eq__)
    await means.nack("a2", "a1")
    parcels += [means.put("a3", key="a"), means.put("b", key="b"), means.put("c", key="c")]

    assert means.current.bodies == ["a1", "a2", "b", "c"]
    means.current.confirm("b", "c")
    await asyncio.gather(*(pending.done for pending in parcels[3:]))
    await eventually(lambda: means.current.bodies[4:], ["a1", "a2", "a3"].__eq__)
    means.current.confirm("a1", "a2", "a3")
    await asyncio.gather(*(pending.done for pending in parcels))


@pytest.mark.asyncio
async def test_what_is_held_back_goes_on_over_the_next_link_in_its_order() -> None:
    means = FakeMeans()
    old = means.current
    parcels = [means.put(body) for body in ("a1", "a2")]
    await eventually(lambda: old.bodies, ["a1", "a2"].__eq__)
    await means.nack("a1")
    parcels.append(means.put("a3"))
    means.link = FakeLink()
    old.fail(LinkDown("cut"))
    parcels.append(means.put("b", key="b"))

    await eventually(lambda: means.current.bodies, ["b", "a1", "a2", "a3"].__eq__)
    means.current.confirm("a1", "a2", "a3", "b")
    await asyncio.gather(*(pending.done for pending in parcels))


@pytest.mark.asyncio
async def test_closing_ends_what_is_held_back() -> None:
    means = FakeMeans()
    nacked = means.put("a1")
    await eventually(lambda: means.current.sent)
    await means.nack("a1")
    behind = means.put("a2")

    means.line.close()
    with pytest.raises(PublishUnconfirmed):
        await nacked.done
    with pytest.raises(ConnectionLost):
        await behind.done


@pytest.mark.asyncio
async def test_a_refused_exchange_ends_what_waits_with_the_reason() -> None:
    means = FakeMeans()
    pending = means.put("a")
    await eventually(lambda: means.current.sent)
    means.current.fail(ChannelDown(403, "ACCESS_REFUSED - access to exchange 'x' refused"))

    with pytest.raises(PublishRefused, match="refused"):
        await pending.done
    with pytest.raises(PublishRefused, match="refused"):
        await means.put("b").done


REFUSED_TOPICS = (
    "ACCESS_REFUSED - write access to topic 'bad' in exchange 'x' in vhost '/' refused for user",
    "ACCESS_REFUSED - access to topic 'bad' in exchange 'x' in vhost '/' refused for user",
)


@pytest.mark.asyncio
@pytest.mark.parametrize("text", REFUSED_TOPICS)
async def test_a_refused_channel_ends_its_own_messages_alone(text: str) -> None:
    means = FakeMeans()
    first, bad, last = means.put("a"), means.put("b", key="bad"), means.put("c", key="worse")
    await eventually(lambda: means.current.bodies, ["a", "b", "c"].__eq__)
    means.current.fail(ChannelDown(403, text))

    with pytest.raises(PublishRefused, match="refused"):
        await bad.done
    again = means.put("d", key="bad")
    later = means.put("e")
    await eventually(lambda: means.current.bodies[3:], ["a", "c", "e"].__eq__)
    assert not again.done.done(), "a caller that insists waits"
    means.current.confirm("a", "c", "e")
    await asyncio.gather(first.done, last.done, later.done)
    with pytest.raises(PublishRefused, match="refused") as refused:
        await again.done
    assert not refused.value.sent
    assert {bad.progress.state, again.progress.state} == {State.REFUSED, State.WAITING}


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["k" * 200, "k" * 198 + "\N{SNOWMAN}"])
async def test_a_refusal_that_the_broker_cuts_short_names_its_messages_too(key: str) -> None:
    means = FakeMeans()
    near, bad = means.put("a", key="k" * 199), means.put("b", key=key)
    await eventually(lambda: len(means.current.sent), (2).__eq__)
    text = f"ACCESS_REFUSED - write access to topic '{key}' in exchange 'x' in vhost '/' refused"
    means.current.fail(ChannelDown(403, text.encode()[:252].decode(errors="replace") + "..."))

    with pytest.raises(PublishRefused):
        await bad.done
    await eventually(lambda: means.current.bodies[2:], ["a"].__eq__)
    means.current.confirm("a")
    await near.done


@pytest.mark.asyncio
async def test_whoever_is_not_named_outlasts_any_number_of_refusals() -> None:
    means = FakeMeans()
    first = means.put("a")
    for turn in range(8):
        bad = means.put("b", key=f"bad{turn}")
        await eventually(lambda: means.current.bodies, (["a", "b"] * (turn + 1)).__eq__)
        text = f"ACCESS_REFUSED - write access to topic 'bad{turn}' in exchange 'x' refused"
        means.current.fail(ChannelDown(403, text))
        with pytest.raises(PublishRefused):
            await bad.done

    await eventually(lambda: means.current.bodies[16:], ["a"].__eq__)
    means.current.confirm("a")
    await first.done


@pytest.mark.asyncio
async def test_a_wrong_topology_is_told_to_all_and_not_for_ever() -> None:
    means = FakeMeans()
    means.error = TopologyError("exchange 'x'", "type is 'fanout' on the broker")
    first, second = means.put("a"), means.put("b")
    for pending in (first, second):
        with pytest.raises(TopologyError, match="fanout"):
            await pending.done

    means.error = None
    third = means.put("c")
    await eventually(lambda: means.current.bodies == ["c"])
    means.current.confirm("c")
    await third.done


@pytest.mark.asyncio
async def test_a_missing_exchange_is_made_again() -> None:
    means = FakeMeans()
    pending = means.put("a")
    await eventually(lambda: means.current.sent)
    means.current.fail(ChannelDown(404, "NOT_FOUND - no exchange 'x'"))

    await eventually(lambda: means.current.bodies == ["a", "a"])
    means.current.confirm("a")
    await pending.done


@pytest.mark.asyncio
async def test_large_messages_go_one_at_a_time() -> None:
    means = FakeMeans()
    parcels = [means.put(body, size=3 * 1024 * 1024) for body in "abc"]
    for number, body in enumerate("abc", 1):
        await eventually(lambda: len(means.current.sent), number.__eq__)
        await asyncio.sleep(0.02)
        assert len(means.current.sent) == number
        means.current.confirm(body)
    for pending in parcels:
        await pending.done


@pytest.mark.asyncio
async def test_closing_tells_what_was_never_sent_from_what_was() -> None:
    means = FakeMeans()
    link = means.current
    sent = means.put("a")
    await eventually(lambda: link.sent)
    means.link = None
    waits = means.put("b")

    means.line.close()
    link.fail(LinkDown("closed by this side"))
    with pytest.raises(ConnectionLost):
        await waits.done
    with pytest.raises(PublishUnconfirmed):
        await sent.done
    with pytest.raises(ConnectionLost):
        await means.put("c").done
