"""What is measured. Each workload runs in a process of its own, see `benchmarks.child`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.broker import ready
from benchmarks.peer import Connect

LANES = 256
PREFETCH = 64
PATIENCE = 120.0
"""Seconds after which a workload that does not end has failed."""

PAYLOAD: Mapping[str, object] = {
    "order": 123456,
    "customer": "c-0001",
    "lines": [{"sku": f"sku-{number:04}", "count": number} for number in range(1, 6)],
    "note": "x" * 87,
}
"""288 bytes of JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Seconds and processor seconds of this process for `count` messages."""

    count: int
    seconds: float
    cpu: float


class Stopwatch:
    """Measures both kinds of time from its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, count: int) -> Measurement:
        """Return what has passed, for `count` messages."""
        return Measurement(
            count=count,
            seconds=time.perf_counter() - self._wall,
            cpu=time.process_time() - self._cpu,
        )


class StoredError(Exception):
    """The broker has another number of messages than it must have: the figure is void."""

    def __init__(self, queue: str, found: int, expected: int) -> None:
        super().__init__(f"{found} messages in {queue} instead of {expected}")


async def publish(connect: Connect, url: str, queue: str, *, count: int, lanes: int) -> Measurement:
    """Publish `count` messages, `lanes` under way at a time."""
    numbers = iter(range(count))
    async with connect(url, queue) as peer:
        await peer.publish(PAYLOAD)  # whatever is made at the first publish is not measured

        async def lane() -> None:
            for _ in numbers:
                await peer.publish(PAYLOAD)

        watch = Stopwatch()
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(lane())
        measurement = watch.stop(count)
    await _expect(url, peer.queue, count + 1)
    return measurement


async def consume(connect: Connect, url: str, queue: str, *, count: int) -> Measurement:
    """Take `count` stored messages, from the first handler's start to the last one's."""
    await publish(connect, url, queue, count=count - 1, lanes=LANES)
    ended = asyncio.get_running_loop().create_future()
    watch, seen = Stopwatch(), 0

    async def handle(_: object) -> None:
        nonlocal watch, seen
        seen += 1
        if seen == 1:
            watch = Stopwatch()
        if seen == count:
            ended.set_result(watch.stop(count - 1))

    async with connect(url, queue) as peer, peer.consume(handle, prefetch=PREFETCH):
        async with asyncio.timeout(PATIENCE):
            measurement: Measurement = await ended
    await _expect(url, peer.queue, 0)
    return measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How delayed messages fared.

    Attributes:
        order: the delays in the order in which they ran.
        late: seconds each ran after it was due, by delay; it is due its delay after the call of
            publish.
        publisher_gone: seconds after the last publish at which its publisher had disconnected.
        in_queue: messages in the work queue while one waited and nobody consumed. With 0 of them
            no worker can take it before it is due, and so none holds it.
    """

    order: list[float]
    late: dict[float, float]
    publisher_gone: float
    in_queue: int


async def delays(connect: Connect, url: str, queue: str, *, seconds: Sequence[float]) -> Waits:
    """Publish one message for each delay, in the given order, and see when they run."""
    due: dict[float, float] = {}
    late: dict[float, float] = {}
    all_ran = asyncio.get_running_loop().create_future()

    async def handle(payload: object) -> None:
        if not isinstance(payload, dict) or payload["delay"] not in due:
            return  # the one that is there to be looked for
        late[payload["delay"]] = time.perf_counter() - due[payload["delay"]]
        if len(late) == len(seconds):
            all_ran.set_result(None)

    async with connect(url, queue) as worker:
        # Whatever is made in the broker at the first use is not measured.
        await worker.publish_later({"delay": None}, max(seconds))
        in_queue = await ready(url, worker.queue)
        async with (
            worker.consume(handle, prefetch=PREFETCH),
            asyncio.timeout(max(seconds) + PATIENCE),
        ):
            gone = await _publish_later(connect, url, queue, due, seconds)
            await all_ran
    return Waits(order=list(late), late=late, publisher_gone=gone, in_queue=in_queue)


async def _publish_later(
    connect: Connect, url: str, queue: str, due: dict[float, float], seconds: Sequence[float]
) -> float:
    """Publish and disconnect; return how long disconnecting took."""
    async with connect(url, queue) as publisher:
        for delay in seconds:
            due[delay] = time.perf_counter() + delay
            await publisher.publish_later({"delay": delay}, delay)
        published = time.perf_counter()
    return time.perf_counter() - published


async def _expect(url: str, queue: str, expected: int) -> None:
    found = await ready(url, queue)
    if found != expected:
        raise StoredError(queue, found, expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A rate to measure. `serial` ones are slow and get fewer messages."""

    title: str
    measure: Callable[[Connect, str, str, int], Awaitable[Measurement]]
    serial: bool = False


WORKLOADS: Mapping[str, Workload] = {
    "publish-serial": Workload(
        title="confirmed publish, one after the other",
        measure=lambda connect, url, queue, count: publish(
            connect, url, queue, count=count, lanes=1
        ),
        serial=True,
    ),
    "publish-256": Workload(
        title=f"confirmed publish, {LANES} under way",
        measure=lambda connect, url, queue, count: publish(
            connect, url, queue, count=count, lanes=LANES
        ),
    ),
    "consume-64": Workload(
        title=f"consume, prefetch {PREFETCH}, ack after the handler",
        measure=lambda connect, url, queue, count: consume(connect, url, queue, count=count),
    ),
}
