from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster_kit.clock import SystemClock
from cluster_kit.errors import PublishRefused
from cluster_kit.message import Envelope
from cluster_kit.names import QueueName
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.clock import FakeClock
from cluster_kit_amqp.connection import publishing_channel
from cluster_kit_amqp.connection.supervised import Connection
from cluster_kit_amqp.control.declare import Declarer
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.link import Message, Nacked, QueueCounts
from cluster_kit_amqp.tasks import publisher as publisher_module
from cluster_kit_amqp.tasks.delays import wait_for
from cluster_kit_amqp.tasks.publisher import Publisher
from cluster_kit_amqp.topology import Steps

pytestmark = pytest.mark.asyncio

QUEUE = QueueName("shop", "mails")


class FakeChannel:
    """Publishes to a queue that takes nothing on the channels that are `stale`."""

    def __init__(self, link: FakeLink) -> None:
        self._link, self.number = link, len(link.channels)
        self.open = True

    def on_closed(self, callback: Callable[[str], None]) -> None:
        self.closed = callback

    async def check_queue(self, name: str) -> QueueCounts:
        self._link.asked.append(name)
        return QueueCounts(ready=self._link.ready, consumers=0)

    async def publish(self, exchange: str, key: str, message: Message) -> None:
        if self.number < self._link.stale:
            raise Nacked("its queue did not take it")
        self._link.stored.append(message)
        self._link.keys.append(key)

    async def close(self) -> None:
        self.open = False


class FakeLink:
    """A link that is always up, to a broker whose queue holds `ready` messages."""

    lost: str | None = None
    blocked: str | None = None

    def __init__(self, *, stale: int, ready: int) -> None:
        self.stale, self.ready = stale, ready
        self.channels: list[FakeChannel] = []
        self.stored: list[Message] = []
        self.keys: list[str] = []
        self.asked: list[str] = []

    async def open_channel(self, *, confirms: bool = False) -> FakeChannel:
        self.channels.append(FakeChannel(self))
        return self.channels[-1]

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncIterator[FakeChannel]:
        yield FakeChannel(self)


class FakeConnection:
    generation = 1

    def __init__(self, link: FakeLink) -> None:
        self.link = self.writable_now = link


async def publish(link: FakeLink, timeout: float = 10.0) -> None:
    tasks = Supervisor()
    context = AdapterContext(app="shop", instance_id="one", tasks=tasks, emit=lambda *_, **__: None)
    publisher = Publisher(
        cast("Connection", FakeConnection(link)),
        Declarer(cast("Any", None), "none", 10, cast("Any", None), tasks),
        context,
        Problems(SystemClock()),
        cast("Any", None),
    )
    try:
        await publisher.publish(Envelope(queue=QUEUE, id="a" * 32, body=b"1"), 0.0, timeout)
    finally:
        publisher.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_PAUSE_AFTER_NACK", 0.001)
    monkeypatch.setattr(publishing_channel, "_NEW_FOR", 0.0)


@pytest.mark.parametrize("stale", [1, 3])
async def test_a_queue_without_a_leader_is_tried_on_other_channels_until_one_is_taken(
    stale: int,
) -> None:
    link = FakeLink(stale=stale, ready=0)

    await publish(link)

    assert len(link.stored) == 1
    assert len(link.channels) == stale + 1
    assert [channel.open for channel in link.channels][-2:] == [True, True]
    assert all(not channel.open for channel in link.channels[:-2])


async def test_a_full_queue_is_told_after_few_tries_and_asked_about_once() -> None:
    link = FakeLink(stale=1, ready=3)

    with pytest.raises(PublishRefused, match="did not take it"):
        await publish(link)

    assert link.asked == [QUEUE.full]
    assert len(link.channels) == 1


async def test_a_queue_that_never_has_a_leader_is_told_at_the_deadline() -> None:
    link = FakeLink(stale=1_000_000, ready=0)

    with pytest.raises(PublishRefused, match=r"did not take message a+ for .* within 0\.2 s"):
        await publish(link, timeout=0.2)

    assert link.stored == []


class SlowDeclarer(Declarer):
    """Takes a second for each section of the chain."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(cast("Any", None), "auto", 10, None, Supervisor())
        self._clock = clock

    async def ensure_queue(self, link: object, queue: QueueName) -> None: ...

    async def ensure(self, link: object, name: str, steps: Steps, last: object = None) -> None:
        await self._clock.advance(1.0)


async def test_the_time_the_chain_takes_to_be_made_is_part_of_the_delay(
    fake_clock: FakeClock,
) -> None:
    link, tasks = FakeLink(stale=0, ready=0), Supervisor()
    context = AdapterContext(
        app="shop", instance_id="one", tasks=tasks, emit=lambda *_, **__: None, clock=fake_clock
    )
    publisher = Publisher(
        cast("Connection", FakeConnection(link)),
        SlowDeclarer(fake_clock),
        context,
        Problems(fake_clock),
        cast("Any", SimpleNamespace(use=lambda *_: None)),
    )
    try:
        await publisher.publish(Envelope(queue=QUEUE, id="a" * 32, body=b"1"), 9.9, 60.0)
    finally:
        publisher.close()
    assert link.keys == [wait_for("shop", QUEUE, 7.9).key]
