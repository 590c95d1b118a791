"""Where a stream is read on after a loss, on a broker that says what the test lets it say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest

from cluster_kit.errors import TopologyError
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit_amqp.broadcast import streams
from cluster_kit_amqp.broadcast.streams import OFFSET, Stream
from cluster_kit_amqp.link import ChannelDown, Incoming, LinkDown, Message, QueueCounts

pytestmark = pytest.mark.asyncio


def message(offset: int, text: str = "") -> Incoming:
    body = (text or f"message {offset}").encode()
    given = Message(body, {OFFSET: offset}, message_id=f"id of {text or offset}")
    return Incoming(message=given, tag=1, redelivered=False, key="prices.changed")


class Broker:
    """A stream, one link to it and its only channel; `stored` is None while there is no stream.

    Attributes:
        silent: whether it gives out nothing.
        breaks: what is called when a consumer has been started.
        reads: the offsets asked for.
        refusal: what it says of a stream it has not.
    """

    def __init__(self, *stored: Incoming) -> None:
        self.stored: list[Incoming] | None = list(stored)
        self.silent = False
        self.breaks: Callable[[], object] = lambda: None
        self.reads: list[object] = []
        self.refusal = ChannelDown(404, "NOT_FOUND - no queue 'x' in vhost '/'")
        self._closed: list[Callable[[str], None]] = []

    def forget(self, name: str) -> None: ...

    async def ensure(self, link: object, name: str, steps: object) -> None:
        self.stored = self.stored or []

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[Broker, None]:
        yield self

    def on_closed(self, callback: Callable[[str], None]) -> None:
        self._closed.append(callback)

    def lose(self) -> None:
        for callback in self._closed:
            callback("cut")

    async def check_queue(self, name: str) -> QueueCounts:
        if self.stored is None:
            raise self.refusal
        return QueueCounts(0, 0)

    async def consume(
        self,
        queue: str,
        *,
        on_message: Callable[[str, Incoming], None],
        arguments: Mapping[str, object],
        **_: object,
    ) -> str:
        start = arguments[OFFSET]
        self.reads.append(start)
        assert isinstance(start, int)
        for incoming in self.stored or ():
            if not self.silent and cast("int", incoming.message.headers[OFFSET]) >= start:
                on_message("tag", incoming)
        self.breaks()
        return "tag"


def stream_of(broker: Broker) -> Stream:
    context = AdapterContext(app="shop", instance_id="1", tasks=Supervisor(), emit=Telemetry().emit)
    return Stream("pubsub", cast("Any", broker), context)


async def opened(stream: Stream, broker: Broker) -> tuple[str | None, object]:
    """Open it; return why messages may be missing, and from where it is read then."""
    missing = await stream.open(cast("Any", broker))
    return missing, stream.consumption().arguments[OFFSET]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_READ_WITHIN", 0.05)


@pytest.mark.parametrize("silent", [True, False])
async def test_what_was_there_before_is_never_read(*, silent: bool) -> None:
    broker = Broker(message(0), message(1))
    broker.silent = silent
    stream = stream_of(broker)

    assert await opened(stream, broker) == (None, "next")
    missing, start = await opened(stream, broker)
    assert missing is not None
    assert start == "next"


async def test_a_stream_of_which_nothing_was_there_is_read_from_its_beginning() -> None:
    broker = Broker()
    broker.stored = None
    stream = stream_of(broker)

    assert await opened(stream, broker) == (None, 0)
    assert await opened(stream, broker) == (None, 0)
    assert stream.took(message(0)) is None
    assert stream.consumption().arguments[OFFSET] == 1


async def test_a_stream_that_is_away_with_its_node_is_not_taken_to_be_new() -> None:
    broker = Broker()
    broker.stored = None
    broker.refusal = ChannelDown(404, "NOT_FOUND - queue 'x' in vhost '/' is down or inaccessible")

    with pytest.raises(ChannelDown):
        await opened(stream_of(broker), broker)


async def test_a_user_that_may_not_look_is_told() -> None:
    broker = Broker()
    broker.stored = None
    broker.refusal = ChannelDown(403, "ACCESS_REFUSED")

    with pytest.raises(TopologyError, match="REFUSED"):
        await opened(stream_of(broker), broker)


async def test_what_is_cut_before_anything_was_read_is_told_with_what_comes_first() -> None:
    broker = Broker()
    broker.stored = None
    stream = stream_of(broker)
    await opened(stream, broker)
    assert await opened(stream, broker) == (None, 0)

    assert stream.took(message(7)) is not None
    assert stream.took(message(9)) is None  # what the broker notes for itself has offsets, too


async def _read_to(offset: int) -> tuple[Stream, Broker]:
    broker = Broker(*(message(number) for number in range(offset + 1)))
    stream = stream_of(broker)
    await opened(stream, broker)
    stream.took(message(offset))
    return stream, broker


async def test_it_goes_on_behind_what_was_read_last() -> None:
    stream, broker = await _read_to(4)

    assert await opened(stream, broker) == (None, 5)
    assert broker.reads == [4]


async def test_a_beginning_behind_what_was_read_is_a_gap() -> None:
    stream, broker = await _read_to(4)
    broker.stored = [message(7)]

    missing, start = await opened(stream, broker)
    assert missing is not None
    assert start == 5, "all there is of it"


async def test_another_message_in_its_place_is_a_gap() -> None:
    stream, broker = await _read_to(4)
    broker.stored = [message(number, f"other {number}") for number in range(10)]

    missing, start = await opened(stream, broker)
    assert missing is not None
    assert "anew" in missing
    assert start == "next"


@pytest.mark.parametrize("kept", [0, 5])
async def test_silence_proves_nothing(kept: int) -> None:
    stream, broker = await _read_to(4)
    broker.silent = True
    assert broker.stored is not None
    del broker.stored[kept:]

    missing, start = await opened(stream, broker)
    assert missing is not None
    assert "anew" not in missing
    assert start == "next"


async def test_a_stream_that_was_deleted_is_a_gap_and_read_from_its_beginning() -> None:
    stream, broker = await _read_to(4)
    broker.stored = None

    missing, start = await opened(stream, broker)
    assert missing is not None
    assert start == 0


@pytest.mark.parametrize("when", ["at once", "while it waits"])
async def test_a_link_that_breaks_while_it_looks_costs_nothing(when: str) -> None:
    stream, broker = await _read_to(4)
    broker.silent = True
    later = partial(asyncio.get_running_loop().call_soon, broker.lose)
    broker.breaks = broker.lose if when == "at once" else later
    with pytest.raises(LinkDown):
        await opened(stream, broker)

    broker.silent, broker.breaks = False, lambda: None
    assert await opened(stream, broker) == (None, 5)
