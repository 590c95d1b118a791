"""What a contender in the benchmark has to be able to do.

A peer is one small file in ``peers/`` with a constant ``PEER``; the name of the file is its name.
It uses a durable quorum queue, publishes persistent JSON with confirms, and acknowledges a message
after its handler has returned; whoever measures less work measures something else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Payload = dict[str, Any]
"""Travels as JSON."""

Handle = Callable[[Payload], None]
"""Called by a peer's handler; what it raises is the failure of a run."""

AsyncPublish = Callable[[Payload], Awaitable[object]]
"""Returns when the broker has confirmed that the payload is stored."""

BlockingPublish = Callable[[Payload], object]
"""The same, for a library that blocks."""


class AgainError(Exception):
    """The run failed and has to be tried again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncPeer:
    """A library that runs in an event loop.

    Attributes:
        title: its name for people.
        packages: distributions whose versions a figure depends on.
        publisher: ``publisher(url, queue)`` connects and gives the function that publishes.
        consumer: ``consumer(url, queue, handle, prefetch)`` handles messages while it is open;
            leaving it acknowledges what was handled.
        queues: patterns of the queues it makes, the one for work first.
        later: as `publisher`, but a payload runs ``payload["delay"]`` seconds from now; None for a
            library without delays.
        workloads: it is measured in; none means all it can do.
        note: what a reader of its figures must know.
    """

    title: str
    packages: Sequence[str]
    publisher: Callable[[str, str], AbstractAsyncContextManager[AsyncPublish]]
    consumer: Callable[[str, str, Handle, int], AbstractAsyncContextManager[None]]
    queues: Sequence[str] = ("{}",)
    later: Callable[[str, str], AbstractAsyncContextManager[AsyncPublish]] | None = None
    workloads: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingPeer:
    """A library that blocks. Its publishes are under way in threads, as many as serve it best.

    Attributes:
        threads: most publishes that are under way at a time.
    """

    title: str
    packages: Sequence[str]
    publisher: Callable[[str, str], AbstractContextManager[BlockingPublish]]
    consumer: Callable[[str, str, Handle, int], AbstractContextManager[None]]
    threads: int
    queues: Sequence[str] = ("{}",)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds, and processor seconds of this process, for `count` messages."""

    count: int
    seconds: float
    cpu: float

    def figures(self) -> dict[str, object]:
        """Return it as a process reports it."""
        return {"count": self.count, "seconds": self.seconds, "cpu": self.cpu}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """No library: what the broker can do at most.

    Attributes:
        publish: ``publish(url, queue, seconds, window)`` with at most `window` unconfirmed.
        consume: ``consume(url, queue, count)``.
        pace: ``pace(url, queue, rate, count)`` publishes so many a second.
        listen: ``listen(url, queue, count, ready)`` calls `ready` when it consumes and returns the
            number and the age in seconds of every payload.
    """

    title: str
    packages: Sequence[str]
    publish: Callable[[str, str, float, int], Timed]
    consume: Callable[[str, str, int], Timed]
    pace: Callable[[str, str, float, int], None]
    listen: Callable[[str, str, int, Callable[[], None]], list[tuple[int, float]]]
    queues: Sequence[str] = ("{}",)
    note: str = ""


Peer = AsyncPeer | BlockingPeer | Limit

_FOLDER = Path(__file__).with_name("peers")


def names() -> list[str]:
    """Return the names of all peers."""
    return sorted(path.stem for path in _FOLDER.glob("*.py"))


def load(name: str) -> Peer:
    """Return the peer `name`.

    Raises:
        ImportError: its library is not installed.
    """
    peer: Peer = import_module(f"benchmarks.peers.{name}").PEER
    return peer
