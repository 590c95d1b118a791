from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame

from cluster_kit_amqp.link import LinkDown, Nacked, Returned, Unsent
from cluster_kit_amqp.plane import methods, room
from cluster_kit_amqp.plane.calls import Calls
from cluster_kit_amqp.plane.confirms import Confirms, Pending
from cluster_kit_amqp.plane.frames import MalformedError
from cluster_kit_amqp.plane.heartbeat import BEAT, Heartbeat
from cluster_kit_amqp.plane.methods import Return
from cluster_kit_amqp.plane.room import Room
from cluster_kit_amqp.plane.settlements import Settlements

# --- methods ---------------------------------------------------------------------------------


def pamqp_frame(channel: int, method: object) -> bytes:
    return frame.marshal(method, channel)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (methods.confirm_select(7), commands.Confirm.Select()),
        (
            methods.passive_declare(7, "a.b"),
            commands.Queue.Declare(queue="a.b", passive=True, arguments={}),
        ),
        (methods.qos(7, 9), commands.Basic.Qos(prefetch_count=9)),
        (
            methods.consume(7, "q", "t", {}),
            commands.Basic.Consume(queue="q", consumer_tag="t", arguments={}),
        ),
        (methods.cancel(7, "t"), commands.Basic.Cancel(consumer_tag="t")),
        (methods.cancel_ok(7, b"t"), commands.Basic.CancelOk(consumer_tag="t")),
        (
            methods.publish(7, "x", "k", mandatory=True),
            commands.Basic.Publish(exchange="x", routing_key="k", mandatory=True),
        ),
        (methods.ack(7, 2**40, multiple=True), commands.Basic.Ack(2**40, multiple=True)),
        (methods.ack(7, 5, multiple=False), commands.Basic.Ack(5)),
        (methods.requeue(7, 5, multiple=True), commands.Basic.Nack(5, True, True)),
        (methods.requeue(7, 5, multiple=False), commands.Basic.Nack(5, False, True)),
        (
            methods.close(7, methods.CHANNEL_CLOSE, 200, "bye"),
            commands.Channel.Close(200, "bye", 0, 0),
        ),
        (
            methods.close(0, methods.CONNECTION_CLOSE, 200, "bye"),
            commands.Connection.Close(200, "bye", 0, 0),
        ),
        (methods.method(7, methods.CHANNEL_CLOSE_OK), commands.Channel.CloseOk()),
        (methods.tune_ok(methods.Tuning(1, 2, 3)), commands.Connection.TuneOk(1, 2, 3)),
        (methods.connection_open("shop"), commands.Connection.Open("shop")),
        (
            methods.start_ok({"a": "b"}, "PLAIN", b"\0u\0p"),
            commands.Connection.StartOk({"a": "b"}, "PLAIN", "\0u\0p"),
        ),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value.name,
)
def test_methods_are_written_as_pamqp_writes_them(ours: bytes, theirs: object) -> None:
    channel = int.from_bytes(ours[1:3], "big")

    assert ours == pamqp_frame(channel, theirs)


def arguments(method: object) -> bytes:
    return pamqp_frame(1, method)[11:-1]


def test_methods_are_read_as_pamqp_writes_them() -> None:
    assert methods.read_close(arguments(commands.Channel.Close(404, "gone", 1, 2))) == (404, "gone")
    assert methods.read_declared(arguments(commands.Queue.DeclareOk("q", 3, 4))) == (3, 4)
    assert methods.read_confirm(arguments(commands.Basic.Ack(9, multiple=True))) == (9, True)
    assert methods.read_confirm(arguments(commands.Basic.Nack(9))) == (9, False)
    assert methods.read_cancel(arguments(commands.Basic.Cancel("t", nowait=True))) == (b"t", True)
    told = methods.read_return(arguments(commands.Basic.Return(312, "NO_ROUTE", "x", "k")))
    assert told == Return("NO_ROUTE", "x", "k")
    start = methods.read_start(
        arguments(commands.Connection.Start(0, 9, {"product": "p"}, "PLAIN EXTERNAL"))
    )
    assert (dict(start.properties), start.mechanisms) == ({"product": "p"}, ("PLAIN", "EXTERNAL"))
    tune = methods.read_tune(arguments(commands.Connection.Tune(1, 2, 3)))
    assert tune == methods.Tuning(1, 2, 3)


@pytest.mark.parametrize("name", ["häuser und mäuse", "a\nb", "*#!§$%&/()=?", "x" * 255])
def test_any_text_is_a_name(name: str) -> None:
    raw = name.encode()

    assert bytes([len(raw)]) + raw in methods.publish(1, name, "key", mandatory=True)
    assert bytes([len(raw)]) + raw in methods.consume(1, name, "tag", {})


# --- settlements -----------------------------------------------------------------------------


class Broker:
    """Settles as RabbitMQ does, and like it takes no tag that is not unsettled."""

    def __init__(self) -> None:
        self.unsettled: list[int] = []
        self.acked: list[int] = []
        self.returned: list[int] = []

    def take(self, frames: bytes) -> int:
        count = 0
        while frames:
            used, _, told = frame.unmarshal(frames)
            frames, count = frames[used:], count + 1
            assert isinstance(told, commands.Basic.Ack | commands.Basic.Nack)
            tag = told.delivery_tag
            assert tag in self.unsettled, "unknown delivery tag"
            settled = (
                [known for known in self.unsettled if known <= tag] if told.multiple else [tag]
            )
            (self.acked if isinstance(told, commands.Basic.Ack) else self.returned).extend(settled)
            self.unsettled = [known for known in self.unsettled if known not in settled]
        return count


steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.just(0)),
        st.tuples(st.sampled_from(["ack", "ack", "ack", "requeue", "all"]), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=120,
)


@given(steps)
def test_exactly_what_was_settled_is_settled_at_the_broker(
    todo: list[tuple[str, int]],
) -> None:
    broker, settlements = Broker(), Settlements(1)
    acked: set[int] = set()
    returned: set[int] = set()
    delivered = 0
    for what, number in todo:
        open_tags = [t for t in range(1, delivered + 1) if t not in acked | returned]
        tag = open_tags[number % len(open_tags)] if open_tags else 0
        if what == "deliver":
            delivered += 1
            broker.unsettled.append(delivered)
            settlements.unsettled[delivered] = None
        elif what == "turn":
            broker.take(settlements.take())
            assert set(broker.acked) == acked
        elif tag and what == "ack":
            assert settlements.ack(tag)
            acked.add(tag)
        elif tag:
            frames = settlements.requeue(tag, multiple=what == "all")
            assert frames is not None
            broker.take(frames)
            returned |= {t for t in open_tags if t == tag or (what == "all" and t <= tag)}
    broker.take(settlements.take())

    assert set(broker.acked) == acked
    assert set(broker.returned) == returned
    assert len(broker.unsettled) == delivered - len(acked) - len(returned)


def test_a_prefix_is_joined_and_nothing_else() -> None:
    broker, settlements = Broker(), Settlements(1)
    for tag in range(1, 11):
        broker.unsettled.append(tag)
        settlements.unsettled[tag] = None
    for tag in (3, 1, 2, 5, 8, 7):
        settlements.ack(tag)

    assert broker.take(settlements.take()) == 4  # 1 to 3 in one, then 5, 7, 8
    settlements.ack(4)
    settlements.ack(6)
    assert broker.take(settlements.take()) == 1  # what lies between is settled
    assert settlements.take() == b""
    assert broker.unsettled == [9, 10]


def test_what_is_not_unsettled_cannot_be_settled() -> None:
    settlements = Settlements(1)
    settlements.unsettled[1] = None

    assert settlements.ack(1)
    assert not settlements.ack(1)
    assert not settlements.ack(2)
    settlements.take()
    assert settlements.requeue(1, multiple=False) is None


# --- confirms --------------------------------------------------------------------------------


class Publishing:
    def __init__(self) -> None:
        self.in_flight = 0
        self.confirms = Confirms(self._leave)
        self.futures: list[asyncio.Future[None]] = []

    def _leave(self, messages: int, size: int) -> None:
        assert size == messages * 10
        self.in_flight -= messages

    def publish(self, count: int = 1, message_id: str | None = None) -> None:
        for _ in range(count):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.futures.append(future)
            self.in_flight += 1
            self.confirms.add(Pending(future, 10, message_id, "x", "k"))

    @property
    def states(self) -> list[object]:
        return [
            type(future.exception()) if future.done() and future.exception() else future.done()
            for future in self.futures
        ]


@pytest.mark.asyncio
async def test_confirms_in_any_order_reach_their_publishes() -> None:
    publishing = Publishing()
    publishing.publish(6)
    publishing.confirms.settle(3, multiple=False, taken=True)
    publishing.confirms.settle(5, multiple=False, taken=False)
    assert publishing.states == [False, False, True, False, Nacked, False]
    publishing.confirms.settle(4, multiple=True, taken=True)
    assert publishing.states == [True, True, True, True, Nacked, False]
    publishing.publish()
    publishing.confirms.settle(0, multiple=True, taken=True)

    assert publishing.states[5:] == [True, True]
    assert publishing.in_flight == 0
    publishing.confirms.settle(3, multiple=False, taken=True)  # said twice: no harm
    with pytest.raises(MalformedError, match="message 8 of 7"):
        publishing.confirms.settle(8, multiple=False, taken=True)


@pytest.mark.asyncio
async def test_a_returned_message_is_told_apart_from_those_beside_it() -> None:
    publishing = Publishing()
    publishing.publish(1, "a")
    publishing.publish(2, "b")
    publishing.publish(1, "a")
    publishing.confirms.returned(Return("NO_ROUTE", "x", "k"), "b")
    publishing.confirms.returned(Return("NO_ROUTE", "x", "k"), "a")
    publishing.confirms.returned(Return("NO_ROUTE", "x", "k"), "a")
    publishing.confirms.returned(Return("NO_ROUTE", "other", "k"), "b")
    publishing.confirms.settle(4, multiple=True, taken=True)

    assert publishing.states == [Returned, Returned, True, Returned]


@pytest.mark.asyncio
async def test_a_publish_given_up_stays_in_flight_until_it_is_answered() -> None:
    publishing = Publishing()
    publishing.publish(2)
    publishing.futures[0].cancel()
    assert publishing.in_flight == 2
    publishing.confirms.settle(1, multiple=False, taken=False)
    assert publishing.in_flight == 1
    publishing.confirms.fail_all(lambda: LinkDown("gone"))

    assert publishing.in_flight == 0
    assert isinstance(publishing.futures[1].exception(), LinkDown)


# --- room ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_who_waits_for_room_goes_on_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_MESSAGES", 2)
    space, entered = Room(), list[int]()

    async def publish(number: int) -> None:
        if space.free:
            space.enter(1)
        else:
            await space.wait(1)
        entered.append(number)

    tasks = [asyncio.create_task(publish(number)) for number in range(7)]
    await asyncio.sleep(0)
    assert entered == [0, 1]
    tasks[3].cancel()
    space.leave(1, 1)
    tasks[4].cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert entered == [0, 1, 2]
    space.leave(2, 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert entered == [0, 1, 2, 5, 6]


@pytest.mark.asyncio
async def test_one_that_is_called_and_cancelled_at_once_calls_the_next() -> None:
    space, entered = Room(), list[int]()

    async def publish(number: int) -> None:
        if space.free:
            space.enter(1)
        else:
            await space.wait(1)
        entered.append(number)

    space.shut(1)
    tasks = [asyncio.create_task(publish(number)) for number in range(3)]
    await asyncio.sleep(0)
    space.reopen(1)
    tasks[0].cancel()
    await asyncio.wait(tasks)

    assert entered == [1, 2]


@pytest.mark.asyncio
async def test_who_is_cancelled_while_it_waits_has_sent_nothing() -> None:
    space = Room()
    space.shut(1)
    waiting = asyncio.create_task(space.wait(1))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(Unsent):
        await waiting


@pytest.mark.asyncio
async def test_when_the_link_is_lost_nobody_waits() -> None:
    space = Room()
    space.shut(1)
    tasks = [asyncio.create_task(space.wait(1)) for _ in range(3)]
    await asyncio.sleep(0)
    space.give_up()

    await asyncio.wait(tasks)
    assert all(task.exception() is None for task in tasks)


@pytest.mark.asyncio
async def test_many_bytes_fill_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", 100)
    space = Room()
    seen = [space.free]
    for size in (99, 1000):
        space.enter(size)
        seen.append(space.free)
    space.leave(1, 1000)

    assert [*seen, space.free] == [True, True, False, True]


# --- heartbeat -------------------------------------------------------------------------------


class Loop:
    """A loop whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Loop:
        self.calls.append((self.now + delay, callback))
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def run_one(self) -> None:
        self.now, callback = self.calls.pop(0)
        callback()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_a_silent_peer_is_gone_within_two_intervals(loop: Loop) -> None:
    sent: list[bytes] = []
    lost: list[str] = []
    beating = Heartbeat(10, sent.append, lost.append)
    loop.run_one()
    loop.now += 4.9
    beating.heard()
    last_heard = loop.now
    while not lost:
        loop.run_one()

    assert 10 < loop.now - last_heard <= 20
    assert loop.calls == []
    assert set(sent) == {BEAT}


def test_a_loop_that_was_busy_for_long_kills_nobody(loop: Loop) -> None:
    lost: list[str] = []
    beating = Heartbeat(10, lambda _: None, lost.append)
    for _ in range(10):
        loop.now += 300  # the look comes late
        _, look = loop.calls.pop(0)
        look()
        beating.heard()  # and what had arrived meanwhile is read after it
    assert lost == []


def test_what_is_sent_anyway_saves_a_heartbeat(loop: Loop) -> None:
    sent: list[bytes] = []
    beating = Heartbeat(10, sent.append, lambda _: None)
    for _ in range(4):
        loop.run_one()
        beating.heard()
        beating.spoke()
    assert sent == []
    loop.run_one()
    beating.heard()
    loop.run_one()
    assert sent == [BEAT]
    beating.stop()
    assert loop.calls == []


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_answer_to_a_consumer_that_comes_twice_is_taken_once() -> None:
    calls = Calls()
    consumed = calls.expect(methods.BASIC_CONSUME_OK)
    calls.answered(methods.BASIC_CONSUME_OK, b"\x03one")
    declared = calls.expect(methods.QUEUE_DECLARE_OK)

    calls.answered(methods.BASIC_CONSUME_OK, b"\x03one")
    calls.answered(methods.QUEUE_DECLARE_OK, b"counts")

    assert (consumed.result(), declared.result()) == (b"\x03one", b"counts")
    with pytest.raises(MalformedError, match="out of place"):
        calls.answered(methods.BASIC_CONSUME_OK, b"\x03two")
