"""Measures one thing once, in a fresh process, and prints it as one line of JSON.

``python -m benchmarks.child ROLE PEER QUEUE OPTIONS``; OPTIONS is a JSON object. A consumer prints
``ready`` before. The URL is in ``BENCHMARK_URL``: a command line is seen by everybody. Logging is
off, whatever the peer would have to say.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from benchmarks.load import Load
from benchmarks.measure import Tally, memory
from benchmarks.peer import AsyncPeer, BlockingPeer, Limit, Peer, load

Figures = dict[str, object]
T = TypeVar("T")


def publish(peer: Peer, url: str, queue: str, options: dict[str, Any]) -> Figures:
    """Publish at full speed; options as `Load`."""
    much = Load(**options)
    match peer:
        case AsyncPeer():
            from benchmarks import in_loop

            return _run(in_loop.publish(peer, url, queue, much))
        case BlockingPeer():
            from benchmarks import in_threads

            return in_threads.publish_blocking(peer, url, queue, much)
        case Limit():
            timed = peer.publish(url, queue, much.seconds, much.lanes)
            return timed.figures() | {"stored": timed.count}


def pace(peer: Peer, url: str, queue: str, options: dict[str, Any]) -> Figures:
    """Publish `count` payloads, `rate` a second."""
    if isinstance(peer, AsyncPeer):
        from benchmarks import in_loop

        return _run(in_loop.pace(peer, url, queue, **options))
    if isinstance(peer, BlockingPeer):
        from benchmarks import in_threads

        return in_threads.pace_blocking(peer, url, queue, **options)
    peer.pace(url, queue, options["rate"], options["count"])
    return {}


def later(peer: Peer, url: str, queue: str, options: dict[str, Any]) -> Figures:
    """Publish with delays; `delays` in seconds."""
    if not isinstance(peer, AsyncPeer):
        raise TypeError(f"{peer.title} has no delays")
    from benchmarks import in_loop

    return _run(in_loop.publish_later(peer, url, queue, options["delays"]))


def consume(peer: Peer, url: str, queue: str, options: dict[str, Any]) -> Figures:
    """Consume `expected` payloads; further options as `Tally`."""
    if isinstance(peer, Limit):
        return _consume_at_limit(peer, url, queue, **options)
    tally = Tally(**options)
    _take(peer, url, queue, tally)
    return tally.figures()


def start(peer: Peer, url: str, queue: str, options: dict[str, Any]) -> Figures:
    """Handle one waiting message, then rest for `rest` seconds and look at the memory."""
    if isinstance(peer, Limit):
        peer.listen(url, queue, 1, _ready)
        first = time.monotonic()
        time.sleep(options["rest"])
        return {"first_at": first, "lost": 0, "again": 0, **memory()}
    tally = Tally(1)
    _take(peer, url, queue, tally, rest=options["rest"])
    return tally.figures() | {"first_at": tally.first_at}


def _consume_at_limit(
    peer: Limit, url: str, queue: str, *, expected: int, ages: bool = False
) -> Figures:
    if ages:
        return {"ages": peer.listen(url, queue, expected, _ready), "lost": 0, "again": 0}
    return peer.consume(url, queue, expected).figures() | {"lost": 0, "again": 0}


def _take(
    peer: AsyncPeer | BlockingPeer, url: str, queue: str, tally: Tally, *, rest: float = 0.0
) -> None:
    if isinstance(peer, AsyncPeer):
        from benchmarks import in_loop

        _run(in_loop.consume(peer, url, queue, tally, ready=_ready, rest=rest))
    else:
        from benchmarks import in_threads

        in_threads.consume_blocking(peer, url, queue, tally, ready=_ready, rest=rest)


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(coroutine)


def _ready() -> None:
    print("ready", flush=True)


ROLES: dict[str, Callable[[Peer, str, str, dict[str, Any]], Figures]] = {
    "publish": publish,
    "pace": pace,
    "later": later,
    "consume": consume,
    "start": start,
}


def main() -> None:
    """Measure and print."""
    role, name, queue, options = sys.argv[1:]
    logging.disable()
    begun = time.perf_counter()
    peer = load(name)
    imported = time.perf_counter() - begun
    figures = ROLES[role](peer, os.environ["BENCHMARK_URL"], queue, json.loads(options))
    print(json.dumps(figures | {"import": imported}))


if __name__ == "__main__":
    main()
