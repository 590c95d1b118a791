from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from cluster_kit.clock import SystemClock
from cluster_kit.errors import ConnectError, ConnectionLost, TopologyError, TransportError
from cluster_kit.names import QueueName
from cluster_kit.ports import AdapterContext, Received
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.connection.supervised import Connection
from cluster_kit_amqp.control.declare import Declarer
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.link import (
    ChannelDown,
    Incoming,
    Link,
    LinkDown,
    LinkError,
    Message,
    QueueCounts,
)
from cluster_kit_amqp.server import Server
from cluster_kit_amqp.tasks import consumer as consumer_module
from cluster_kit_amqp.tasks.consumer import AmqpConsumer, ConsumerContext

pytestmark = pytest.mark.asyncio

QUEUE = QueueName("shop", "mails")


class FakeChannel:
    """What a consumer asks of a channel; the broker behind it can be told what to do."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self.open = True

    def on_closed(self, callback: Callable[[str], None]) -> None:
        self.closed = callback

    async def check_queue(self, name: str) -> QueueCounts:
        return QueueCounts(ready=0, consumers=self._broker.consumers_shown)

    async def consume(
        self, queue: str, *, prefetch: int, on_message: Any, on_cancelled: Any
    ) -> str:
        if self._broker.refusal is not None:
            raise self._broker.refusal
        tag = f"tag-{len(self._broker.consumed)}"
        self._broker.consumed.append((tag, prefetch, on_message))
        return tag

    async def cancel(self, tag: str) -> None:
        self._broker.cancelled.append(tag)

    def ack(self, tag: int) -> None:
        self._broker.log.append(f"ack {tag}")

    def requeue(self, tag: int, *, multiple: bool = False) -> None:
        self._broker.log.append(f"requeue {tag}{' and below' if multiple else ''}")

    async def close(self) -> None:
        self._broker.log.append("close")


class FakeBroker:
    """A link that is always up."""

    server = Server(product="RabbitMQ", version="4.0.0")
    lost: str | None = None
    blocked: str | None = None

    def __init__(self) -> None:
        self.consumers_shown = 1
        self.consumed: list[tuple[str, int, Any]] = []
        self.cancelled: list[str] = []
        self.log: list[str] = []
        self.refusal: ChannelDown | None = None
        self.no_channel: LinkError | None = None

    def on_change(self, callback: Callable[[], None]) -> None: ...

    async def open_channel(self, *, confirms: bool = False) -> FakeChannel:
        if self.no_channel is not None:
            raise self.no_channel
        return FakeChannel(self)

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncIterator[FakeChannel]:
        yield FakeChannel(self)

    def deliver(self, tag: int) -> None:
        name, _, on_message = self.consumed[-1]
        on_message(name, Incoming(message=Message(body=b""), tag=tag, redelivered=False))


class FakeConnection:
    def __init__(self, link: FakeBroker) -> None:
        self.link = cast("Link", link)
        self.url = "amqp://guest:s3cret@mq/"

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


@asynccontextmanager
async def consuming(
    broker: FakeBroker, prefetch: int = 3
) -> AsyncIterator[tuple[AmqpConsumer, list[Received], Problems]]:
    tasks, problems, received = Supervisor(), Problems(SystemClock()), list[Received]()
    context = AdapterContext(app="shop", instance_id="one", tasks=tasks, emit=lambda *_, **__: None)
    shared = ConsumerContext(
        connection=cast("Connection", FakeConnection(broker)),
        declarer=Declarer(cast("Any", None), "none", 10, cast("Any", None), tasks),
        context=context,
        problems=problems,
    )
    consumer = AmqpConsumer(
        QUEUE, shared, prefetch=prefetch, on_delivery=received.append, paused=False
    )
    await consumer.start()
    try:
        yield consumer, received, problems
    finally:
        await consumer.close()
        assert await tasks.close() == []


async def test_a_consumer_the_broker_has_forgotten_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer_module, "WATCH_INTERVAL", 0.02)
    broker = FakeBroker()
    async with consuming(broker) as (_, _, problems):
        broker.consumers_shown = 0
        await eventually(lambda: len(broker.consumed) == 2)
        broker.consumers_shown = 1
        await eventually(lambda: problems.health("fine").status == "ok")


async def test_a_refused_consumer_is_a_matter_of_topology() -> None:
    broker = FakeBroker()
    broker.refusal = ChannelDown(404, "NOT_FOUND - no queue")
    with pytest.raises(TopologyError, match="no queue"):
        async with consuming(broker):
            pass


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (
            LinkDown("mq: 530 NOT_ALLOWED - user connection limit (2) is reached", sent=False),
            "cannot connect to amqp://guest:***@mq/: shop.mails is not consumed: mq: 530 NOT_A",
        ),
        (LinkDown("530 NOT_ALLOWED - number of channels: limit of 8"), "cannot connect to amqp://"),
        (LinkDown("[Errno 104] Connection reset by peer"), "[Errno 104]"),
        (ChannelDown(0, "there are 6 channels, and no more are allowed"), "there are 6 channels"),
    ],
)
async def test_a_consumer_without_a_channel_says_why_and_whether_that_is_a_limit(
    refusal: LinkError, error: str
) -> None:
    broker = FakeBroker()
    broker.no_channel = refusal
    with pytest.raises(TransportError) as raised:
        async with consuming(broker):
            pass
    assert str(raised.value).startswith(error)
    assert isinstance(raised.value, ConnectError) == refusal.by_limit
    assert isinstance(raised.value, ConnectionLost) == ("Errno" in error)


async def test_a_failure_nobody_thought_of_shows_and_does_not_end_the_consumer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumer_module, "WATCH_INTERVAL", 0.02)
    broker = FakeBroker()
    async with consuming(broker) as (_, _, problems):
        broker.consumers_shown = 0  # so that it is made again, and that fails
        broker.refusal = cast("ChannelDown", RuntimeError("unthinkable"))
        await eventually(lambda: "unthinkable" in problems.health("fine").detail)
        broker.consumers_shown, broker.refusal = 1, None
        await eventually(lambda: problems.health("fine").status == "ok")


async def test_after_a_pause_the_share_is_filled_up_as_it_gets_free() -> None:
    broker = FakeBroker()
    async with consuming(broker, prefetch=3) as (consumer, received, _):
        for tag in (1, 2):
            broker.deliver(tag)
        await consumer.pause()
        await consumer.resume()
        await eventually(lambda: len(broker.consumed) == 2)
        await received[0].ack()
        await eventually(lambda: len(broker.consumed) == 3)
        await received[1].give_back()
        await eventually(lambda: len(broker.consumed) == 4)

        assert [share for _, share, _ in broker.consumed] == [3, 1, 1, 1]
        await consumer.pause()
        assert broker.cancelled == [tag for tag, _, _ in broker.consumed]


async def test_the_share_is_made_less_in_a_pause_and_more_at_any_time() -> None:
    broker = FakeBroker()
    async with consuming(broker, prefetch=3) as (consumer, received, _):
        broker.deliver(1)
        await consumer.pause()
        await consumer.resume(2)
        await eventually(lambda: len(broker.consumed) == 2)
        await received[0].ack()
        await eventually(lambda: len(broker.consumed) == 3)
        await consumer.resume()
        await consumer.resume(4)
        await eventually(lambda: len(broker.consumed) == 4)

        assert [share for _, share, _ in broker.consumed] == [3, 1, 1, 2]


async def test_closing_returns_what_is_unsettled_before_the_channel() -> None:
    broker = FakeBroker()
    async with consuming(broker) as (consumer, received, _):
        for tag in (1, 2, 3):
            broker.deliver(tag)
        await received[1].ack()
        await consumer.close()

        assert broker.log == ["ack 2", "requeue 3 and below", "close"]


async def test_a_cancelled_pause_takes_effect_all_the_same() -> None:
    broker = FakeBroker()
    async with consuming(broker) as (consumer, _, _):
        pausing = asyncio.create_task(consumer.pause())
        await asyncio.sleep(0)
        pausing.cancel()
        await eventually(lambda: broker.cancelled)
