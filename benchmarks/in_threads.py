"""Publishes and consumes through a peer that blocks: `benchmarks.in_loop` with threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import payload
from benchmarks.load import POLL, PREFETCH, Load, Published
from benchmarks.measure import Standstill, Stopwatch, Tally
from benchmarks.peer import BlockingPeer, BlockingPublish


class Locked(Iterator[int]):
    """Lets several threads take from one iterator."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)


def publish_blocking(peer: BlockingPeer, url: str, queue: str, load: Load) -> dict[str, object]:
    """Publish at full speed."""
    lanes = min(load.lanes, peer.threads)
    with peer.publisher(url, queue) as send, ThreadPoolExecutor(lanes) as pool:
        skipped = 0 if load.count else _warm_blocking(send, pool, lanes)
        published, numbers, lock = Published(load), Locked(load.numbers()), threading.Lock()

        def lane() -> None:
            for number in numbers:
                send(payload.make(number + skipped))
                with lock:
                    published.one()

        for ended in [pool.submit(lane) for _ in range(lanes)]:
            ended.result()
        return published.figures() | {"stored": published.count + skipped}


def _warm_blocking(send: BlockingPublish, pool: ThreadPoolExecutor, lanes: int) -> int:
    """Publish once in every thread: each may have a connection of its own."""
    together = threading.Barrier(lanes)

    def first(number: int) -> None:
        together.wait()
        send(payload.make(number))

    list(pool.map(first, range(lanes)))
    return lanes


def pace_blocking(
    peer: BlockingPeer, url: str, queue: str, *, rate: float, count: int
) -> dict[str, object]:
    """Publish `count` payloads, `rate` a second or as many as it can."""
    with peer.publisher(url, queue) as send:
        watch = Stopwatch()
        for number in range(count):
            time.sleep(max(0.0, number / rate - watch.seconds))
            send(payload.make(number))
    return {"stored": count}


def consume_blocking(
    peer: BlockingPeer,
    url: str,
    queue: str,
    tally: Tally,
    *,
    ready: Callable[[], None],
    rest: float,
) -> None:
    """Consume until the tally has all, then rest so many seconds."""
    stop = Standstill(tally)
    with peer.consumer(url, queue, tally.handle, PREFETCH):
        ready()
        while not stop():
            time.sleep(POLL)
        time.sleep(rest)
        tally.look()
