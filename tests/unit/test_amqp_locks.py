from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from cluster_kit.ports import AdapterContext, Claim
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import ChannelDown, Incoming, LinkDown, Nacked, QueueCounts
from cluster_kit_amqp.locks import desk as desks
from cluster_kit_amqp.locks import names
from cluster_kit_amqp.locks import session as sessions
from cluster_kit_amqp.locks.adapter import AmqpLocks
from cluster_kit_amqp.locks.desk import Desk, Seat
from cluster_kit_amqp.locks.names import SeenFences, make_token
from cluster_kit_amqp.locks.session import Session


class SlowDeclarer:
    """Counts what is made at once."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.made = 0

    def is_settled(self, link: object, name: str) -> bool:
        return name.endswith(".known")

    async def ensure(self, *_: object) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        self.made += 1


class AskedChannel:
    """Answers in order when told to; a cancelled call or a refusal ends it for all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[QueueCounts]]] = []
        self.open = True

    def on_closed(self, callback: Callable[[str], None]) -> None:
        self.told = callback

    async def check_queue(self, name: str) -> QueueCounts:
        answer: asyncio.Future[QueueCounts] = asyncio.get_running_loop().create_future()
        self.asked.append((name, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            self.end(0)
            raise

    def end(self, code: int) -> None:
        self.open = False
        self.told("over")
        for _, answer in self.asked:
            if not answer.done():
                answer.set_exception(ChannelDown(code, "over"))


class AskedLink:
    lost = None
    server = SimpleNamespace(heartbeat=60)

    def __init__(self) -> None:
        self.channels: list[AskedChannel] = []

    async def open_channel(self) -> AskedChannel:
        self.channels.append(AskedChannel())
        return self.channels[-1]


def new_desk() -> Desk:
    context = AdapterContext(
        app="shop", instance_id="one", tasks=Supervisor(), emit=Telemetry().emit
    )
    return Desk("amqp://localhost", context)


@pytest_asyncio.fixture
async def asked() -> AsyncIterator[tuple[Desk, AskedLink]]:
    """A desk whose link answers as the test tells it."""
    desk, link = new_desk(), AskedLink()

    async def ready() -> AskedLink:
        return link

    connections = desk.connections
    desk.connections = cast("Any", SimpleNamespace(consuming=SimpleNamespace(ready=ready)))
    yield desk, link
    await connections.close()


@pytest.mark.asyncio
async def test_a_question_that_is_given_up_fails_no_other(asked: tuple[Desk, AskedLink]) -> None:
    desk, link = asked
    async with asyncio.TaskGroup() as group:
        given_up = group.create_task(desk.ask("one"))
        other = group.create_task(desk.ask("two"))
        await eventually(lambda: link.channels and len(link.channels[0].asked) == 2)
        given_up.cancel()
        await asyncio.sleep(0)
        for ready, (_, answer) in enumerate(link.channels[0].asked):
            answer.set_result(QueueCounts(ready=ready, consumers=1))

    assert given_up.cancelled()
    assert other.result().ready == 1
    assert link.channels[0].open


@pytest.mark.asyncio
async def test_a_question_that_stays_unanswered_ends_its_channel_and_no_later_one(
    asked: tuple[Desk, AskedLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "_SILENCE_SECONDS", 0.05)
    desk, link = asked

    with pytest.raises(TimeoutError):
        await desk.ask("one")

    assert not link.channels[0].open
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.ask("one"))
        await eventually(lambda: len(link.channels) == 2 and link.channels[1].asked)
        link.channels[1].asked[0][1].set_result(QueueCounts(ready=0, consumers=1))


@pytest.mark.asyncio
async def test_only_the_question_that_was_refused_is_told_of_a_missing_queue(
    asked: tuple[Desk, AskedLink],
) -> None:
    desk, link = asked
    questions = [asyncio.create_task(desk.ask(name)) for name in ("missing", "there")]
    await eventually(lambda: link.channels and len(link.channels[0].asked) == 2)

    link.channels[0].end(404)
    await asyncio.wait(questions)

    codes = [cast("ChannelDown", question.exception()).code for question in questions]
    assert codes == [404, 0]


@pytest.mark.asyncio
async def test_hundreds_of_new_locks_are_made_a_few_at_a_time(
    asked: tuple[Desk, AskedLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, _ = asked
    declarer = SlowDeclarer()
    desk._declarer = cast("Any", declarer)
    monkeypatch.setattr(desk, "ask", HalfMade(refused=0).ask)
    monkeypatch.setattr(desk, "seed", HalfMade(refused=0).seed)

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(desk.prepare(f"shop.{number}"))
        await asyncio.wait_for(desk.prepare("shop.known"), 5)

    assert declarer.made == 300
    assert 1 < declarer.most <= 20


class HalfMade:
    """A queue that is there, and takes tokens after some that it refused."""

    def __init__(self, refused: int) -> None:
        self.refused, self.seeded = refused, 0

    async def ask(self, _: str) -> QueueCounts:
        return QueueCounts(ready=0, consumers=0)

    async def seed(self, _: str) -> None:
        self.seeded += 1
        if self.seeded <= self.refused:
            raise Nacked("not taken")


@pytest.mark.asyncio
async def test_a_queue_that_several_make_at_once_is_used_when_it_takes_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, queue = new_desk(), HalfMade(refused=2)
    monkeypatch.setattr(desk, "seed", queue.seed)
    monkeypatch.setattr(desk, "ask", queue.ask)

    await desk.see_it_work("shop.new")

    assert queue.seeded == 3
    await desk.close()


@pytest.mark.asyncio
async def test_a_queue_that_has_a_token_waits_for_no_others_that_are_brought_theirs(
    asked: tuple[Desk, AskedLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, _ = asked
    desk._declarer = cast("Any", SlowDeclarer())
    blocked = asyncio.Event()  # a broker that is short of memory

    async def seed(_: str) -> None:
        await blocked.wait()

    async def ask(queue: str) -> QueueCounts:
        return QueueCounts(ready=int(queue.endswith(".used")), consumers=0)

    monkeypatch.setattr(desk, "seed", seed)
    monkeypatch.setattr(desk, "ask", ask)
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(desk.prepare(f"shop.new{number}"))
        await asyncio.wait_for(desk.prepare("shop.used"), 5)
        blocked.set()


class SettledChannel:
    """Notes what is settled; another token comes while the consumer ends."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, int]] = []
        self.open = True

    def on_closed(self, callback: Callable[[str], None]) -> None: ...

    async def consume(
        self, queue: str, *, on_message: Callable[[str, Incoming], None], **_: object
    ) -> str:
        self.deliver = partial(on_message, queue)
        return queue

    async def cancel_returning(self, _: str, tag: int) -> None:
        self.settled.append(("returned", tag))
        self.deliver(Incoming(message=make_token(2000), tag=3, redelivered=False))

    def ack(self, tag: int) -> None:
        self.settled.append(("acked", tag))


@pytest.mark.asyncio
async def test_a_channel_is_handed_on_with_nothing_unsettled(
    asked: tuple[Desk, AskedLink],
) -> None:
    desk, link = asked
    channel = SettledChannel()
    claim = Claim(name="shop.k", token="a", owner="one", ttl=30)
    session = Session(desk, claim, Seat(cast("Any", link), cast("Any", channel)))
    await session.stand()
    for tag, base in enumerate((900, 1000, 950)):  # the one that is worth most is kept
        channel.deliver(Incoming(message=make_token(base), tag=tag, redelivered=False))
    assert channel.settled == [("acked", 0), ("acked", 2)]

    await session.give_back()

    assert channel.settled[2:] == [("returned", 1), ("acked", 3)]
    assert await desk.seat() is session.seat


@pytest.mark.asyncio
async def test_renewals_wait_for_no_broker_that_takes_no_fresh_token(
    asked: tuple[Desk, AskedLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, link = asked
    monkeypatch.setattr(sessions, "TOKEN_SECONDS", 0.0)
    claim = Claim(name="shop.k", token="a", owner="one", ttl=30)
    channel = SettledChannel()
    session = Session(desk, claim, Seat(cast("Any", link), cast("Any", channel)))
    seeding: list[asyncio.Future[None]] = []

    async def seed(*_: object, **__: object) -> None:
        seeding.append(asyncio.get_running_loop().create_future())
        await seeding[-1]

    async def ask(_: str) -> QueueCounts:
        return QueueCounts(ready=0, consumers=1)

    monkeypatch.setattr(desk, "seed", seed)
    monkeypatch.setattr(desk, "ask", ask)
    desk.heard(cast("Any", link), desk.clock.monotonic())
    locks = AmqpLocks("amqp://localhost", desk._context)
    await locks.close()
    locks._desk = desk
    await session.stand()
    channel.deliver(Incoming(message=make_token(1000), tag=1, redelivered=False))
    locks._take(session, desk.clock.monotonic())

    async with asyncio.timeout(5):
        for _ in range(3):
            assert await locks.renew(claim, timeout=1) == 30
            await asyncio.sleep(0)
        assert len(seeding) == 1
        seeding[0].set_exception(LinkDown("cut"))
        await asyncio.wait(seeding)
        await eventually(lambda: session._refreshing is None)
        assert await locks.renew(claim, timeout=1) == 30
        await eventually(lambda: len(seeding) == 2)
        await locks.release(claim, timeout=1)
        await eventually(seeding[1].cancelled)


def test_fences_go_on_after_the_greatest_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_MOST_SEEN", 2)
    seen = SeenFences()
    seen.note("k", 1000)

    assert [seen.next("k", fence) for fence in (999, 1000, 1001)] == [1001, 1001, 1001]
    assert seen.next("other", 5) == 5

    for name in ("k", "a", "b", "k", "a"):  # of those used last
        seen.note(name, 2000)
    assert [seen.next(name, 5) for name in ("k", "a", "b")] == [2001, 2001, 5]


class SeededLink:
    """Opens a channel when told to, and counts them."""

    def __init__(self) -> None:
        self.channels: list[SimpleNamespace] = []
        self.seeded: list[str] = []
        self.opens = asyncio.Event()

    async def open_channel(self, *, confirms: bool) -> SimpleNamespace:
        channel = SimpleNamespace(open=confirms, publish=self.publish)
        self.channels.append(channel)
        await self.opens.wait()
        return channel

    async def publish(self, _: str, queue: str, __: object) -> None:
        self.seeded.append(queue)


@pytest.mark.asyncio
async def test_many_new_locks_are_seeded_on_one_channel() -> None:
    desk, link = new_desk(), SeededLink()

    async def writable() -> SeededLink:
        return link

    connections = desk.connections
    desk.connections = cast("Any", SimpleNamespace(publishing=SimpleNamespace(writable=writable)))
    seeds = [asyncio.create_task(desk.seed(f"shop.{number}")) for number in range(20)]
    await eventually(lambda: len(link.channels) == 1)

    seeds[0].cancel()  # who opens it: the next one does
    await eventually(lambda: len(link.channels) == 2)
    link.opens.set()
    await asyncio.gather(*seeds[1:])
    assert len(link.channels) == 2
    assert len(set(link.seeded)) == 19

    link.channels[1].open = False  # the broker ended it
    await asyncio.gather(*(desk.seed("shop.0") for _ in range(20)))
    assert len(link.channels) == 3
    await connections.close()
