"""The broker's own limit: ready-made frames through a socket, nothing decoded."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from pamqp import commands, frame

from benchmarks import payload
from benchmarks.load import PREFETCH
from benchmarks.measure import Stopwatch
from benchmarks.peer import Limit, Timed
from benchmarks.raw_link import RawLink, published, raw_link

_WINDOW = 2_000
"""Unconfirmed publishes at most, where a peer may have as many as it likes under way."""

_BURST = 100
"""Publishes in one write, and deliveries acknowledged by one frame."""

_PREFETCH = 1_000

_ACK = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"
"""Head of a Basic.Ack on channel 1: method frame, 13 bytes, class 60, method 80 (AMQP 0-9-1,
sections 2.3.5 and 1.8.3.13). A delivery tag of eight bytes follows, then the flag "multiple"."""

_CONSUMER = "limit"

_DELIVERY = b"\x00\x3c\x00\x3c" + bytes([len(_CONSUMER)]) + _CONSUMER.encode()
"""Head of a Basic.Deliver: class 60, method 60, consumer tag (AMQP 0-9-1, section 1.8.3.14)."""


def _declare(link: RawLink, queue: str) -> None:
    link.ask(
        commands.Queue.Declare(queue=queue, durable=True, arguments={"x-queue-type": "quorum"}),
        commands.Queue.DeclareOk,
    )


class Confirms:
    """Counts the confirmed publishes in what the broker sends; only acks are expected."""

    def __init__(self) -> None:
        self._tail = b""
        self._all_up_to = 0
        self._singles: set[int] = set()

    @property
    def count(self) -> int:
        """Confirmed publishes so far."""
        return self._all_up_to + len(self._singles)

    def feed(self, data: bytes) -> None:
        """Read whatever has come."""
        data = self._tail + data
        size = len(_ACK) + 10
        whole = len(data) - len(data) % size
        self._tail = data[whole:]
        for at in range(0, whole, size):
            if not data.startswith(_ACK, at):
                raise ConnectionError(f"no confirm: {data[at : at + 40]!r}")
            tag, multiple = struct.unpack_from(">Q?", data, at + len(_ACK))
            self._confirm(tag, multiple=multiple)

    def _confirm(self, tag: int, *, multiple: bool) -> None:
        # Confirms come in any order; one with "multiple" covers all up to its tag.
        if multiple:
            self._all_up_to = max(self._all_up_to, tag)
            self._singles = {single for single in self._singles if single > tag}
        else:
            self._singles.add(tag)
        while self._all_up_to + 1 in self._singles:
            self._all_up_to += 1
            self._singles.discard(self._all_up_to)


def publish(url: str, queue: str, seconds: float, window: int) -> Timed:
    """Publish for so long, or once; one by one if the window is 1."""
    one = published(queue, payload.encode(0))
    burst = 1 if window == 1 else _BURST
    most = 1 if window == 1 else _WINDOW
    with raw_link(url) as link:
        _declare(link, queue)
        link.ask(commands.Confirm.Select(), commands.Confirm.SelectOk)
        confirms, sent, many = Confirms(), 0, one * burst
        watch = Stopwatch()
        while not sent or watch.seconds < seconds:
            link.send(many)
            sent += burst
            while sent - confirms.count > most - burst:
                confirms.feed(link.receive())
        while confirms.count < sent:
            confirms.feed(link.receive())
        return watch.stop(sent)


def consume(url: str, queue: str, count: int) -> Timed:
    """Take `count` messages, telling them apart by nothing but the heads of their deliveries."""
    with raw_link(url) as link:
        _declare(link, queue)
        link.ask(commands.Basic.Qos(prefetch_count=_PREFETCH), commands.Basic.QosOk)
        consumer = commands.Basic.Consume(queue=queue, consumer_tag=_CONSUMER)
        link.ask(consumer, commands.Basic.ConsumeOk)
        seen = acknowledged = 0
        tail, watch = b"", Stopwatch()
        while seen < count:
            data = tail + link.receive()
            seen += data.count(_DELIVERY)
            tail = data[1 - len(_DELIVERY) :]
            while seen - acknowledged >= _BURST or acknowledged < seen == count:
                acknowledged = min(acknowledged + _BURST, seen)
                link.send(frame.marshal(commands.Basic.Ack(acknowledged, multiple=True), 1))
        return watch.stop(count)


def pace(url: str, queue: str, rate: float, count: int) -> None:
    """Publish `count` messages, `rate` a second."""
    with raw_link(url) as link:
        _declare(link, queue)
        link.ask(commands.Confirm.Select(), commands.Confirm.SelectOk)
        watch = Stopwatch()
        for number in range(count):
            time.sleep(max(0.0, number / rate - watch.seconds))
            link.send(published(queue, payload.encode(number)))
        confirms = Confirms()
        while confirms.count < count:
            confirms.feed(link.receive())


def listen(url: str, queue: str, count: int, ready: Callable[[], None]) -> list[tuple[int, float]]:
    """Take `count` messages, acknowledge each, and return their numbers and ages."""
    ages: list[tuple[int, float]] = []
    with raw_link(url) as link:
        _declare(link, queue)
        link.ask(commands.Basic.Qos(prefetch_count=PREFETCH), commands.Basic.QosOk)
        link.ask(commands.Basic.Consume(queue=queue), commands.Basic.ConsumeOk)
        ready()
        data = b""
        while len(ages) < count:
            data += link.receive()
            end = 0
            for match in payload.ENCODED.finditer(data):
                given = payload.found(match)
                ages.append((payload.number_of(given), payload.age(given)))
                link.send(frame.marshal(commands.Basic.Ack(len(ages)), 1))
                end = match.end()
            data = data[end:]
    return ages


PEER = Limit(
    title="raw socket",
    packages=(),
    publish=publish,
    consume=consume,
    pace=pace,
    listen=listen,
    note="the limit of the broker: ready-made frames in bursts of 100, nothing decoded; publish "
    "with 2,000 unconfirmed, consume with prefetch 1,000 and one ack for 100",
)
