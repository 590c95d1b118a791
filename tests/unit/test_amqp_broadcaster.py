"""What a publish of a broadcast says when time runs out, and whose number may be used again."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from cluster_kit.broadcast import Audience, Broadcast, NeverSent
from cluster_kit.clock import SystemClock
from cluster_kit.codec import JsonCodec
from cluster_kit.errors import ConnectionLost, PublishRefused, PublishUnconfirmed
from cluster_kit.ports import AdapterContext
from cluster_kit.pubsub.numbering import Numbering
from cluster_kit.pubsub.publishing import Publisher
from cluster_kit.settings import PubSubSettings
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.broadcast.publisher import Broadcaster
from cluster_kit_amqp.link import Message

MESSAGE = Broadcast(realm="pubsub", channel="a", id="1", body=b"1", origin="one", epoch="e", seq=1)


class Wire:
    """A connection, its link and its channel in one; nothing answers by itself."""

    def __init__(self) -> None:
        self.link: Wire | None = self
        self.blocked: str | None = None
        self.generation, self.open = 1, True
        self.sent: list[asyncio.Future[None]] = []

    async def open_channel(self, *, confirms: bool) -> Wire:
        assert confirms
        return self

    def on_closed(self, callback: Any) -> None: ...

    def is_settled(self, link: object, name: str) -> bool:
        return True

    async def ensure(self, link: object, name: str, steps: object) -> None: ...

    async def writable(self) -> Wire:
        await eventually(lambda: self.link)
        return self

    def send(self, exchange: str, key: str, message: Message) -> asyncio.Future[None]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


def broadcaster(wire: Wire) -> Broadcaster:
    context = AdapterContext(
        app="shop", instance_id="one", tasks=Supervisor(), emit=Telemetry().emit
    )
    return Broadcaster(cast("Any", wire), cast("Any", wire), context)


def stand_still(confirm: asyncio.Future[None]) -> None:
    """Keep the event loop past the deadline; what is read first then is the confirm."""
    asyncio.get_running_loop().call_soon(confirm.set_result, None)
    time.sleep(0.3)


@pytest.mark.asyncio
async def test_a_confirm_that_comes_in_the_turn_of_the_deadline_wins() -> None:
    wire = Wire()
    made = broadcaster(wire)
    publish = asyncio.create_task(made.publish(MESSAGE, "ephemeral", 0.2), name="taker")
    await eventually(lambda: wire.sent)
    stand_still(wire.sent[0])

    await publish


@pytest.mark.asyncio
async def test_what_was_sent_is_never_said_not_to_have_been() -> None:
    wire = Wire()
    with pytest.raises(PublishUnconfirmed):
        await broadcaster(wire).publish(MESSAGE, "ephemeral", 0.1)

    wire.link = None
    with pytest.raises(ConnectionLost, match="nothing was sent"):
        await broadcaster(wire).publish(MESSAGE, "ephemeral", 0.1)


@pytest.mark.asyncio
async def test_a_cancelled_publish_says_whether_anything_was_sent() -> None:
    wire = Wire()
    for link, said in ((wire, asyncio.CancelledError), (None, NeverSent)):
        wire.link = wire
        made = broadcaster(wire)
        wire.link = link
        publish = asyncio.create_task(made.publish(MESSAGE, "ephemeral", 5), name="taker")
        await asyncio.sleep(0.05)
        publish.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await publish
        assert type(caught.value) is said


class Failing:
    """An adapter that fails as it is told, and notes numbers."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.numbers: list[int] = []

    async def publish(self, message: Broadcast, *, transport: str, timeout: float) -> None:
        self.numbers.append(message.seq)
        error, self.error = self.error, None
        if error is not None:
            raise error


def refused(*, sent: bool) -> PublishRefused:
    error = PublishRefused("no")
    error.sent = sent
    return error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "numbers"),
    [
        (ConnectionLost("nothing was sent"), [1, 1]),
        (NeverSent(), [1, 1]),
        (refused(sent=False), [1, 1]),
        (refused(sent=True), [1, 2]),
        (PublishUnconfirmed("1", "no confirm"), [1, 2]),
        (asyncio.CancelledError(), [1, 2]),
    ],
)
async def test_a_number_is_used_again_only_if_nothing_was_sent(
    error: BaseException, numbers: list[int]
) -> None:
    publisher = Publisher(
        "pubsub",
        Numbering("one", SystemClock()),
        PubSubSettings(),
        cast("Any", Transports()),
        JsonCodec(),
        Telemetry().emit,
    )
    message = publisher.message("a", 1, Audience.ALL, SystemClock())
    adapter = Failing(error)
    with pytest.raises(BaseException) as caught:
        await publisher.send(message, cast("Any", adapter))
    assert type(caught.value) is not NeverSent
    await publisher.send(message, cast("Any", adapter))

    assert adapter.numbers == numbers


class Transports:
    def of(self, channel: str) -> str:
        return "ephemeral"
