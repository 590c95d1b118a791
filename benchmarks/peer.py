"""What a contender in the benchmark has to be able to do.

A peer is one small file in ``peers/`` with a function ``connect(url, queue)``: an asynchronous
context manager that gives a `Peer`. It makes a durable quorum queue, publishes persistent JSON with
confirms, and acknowledges a message after its handler has returned; whoever measures less work
measures something else. The name of the file is the name of the peer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Protocol

Handle = Callable[[object], Awaitable[None]]
"""Called with the decoded payload of a message."""


class Peer(Protocol):
    """A connected library, with one queue."""

    @property
    def queue(self) -> str:
        """Name of its queue on the broker."""
        ...

    async def publish(self, payload: object) -> None:
        """Return when the broker has confirmed that it is stored."""
        ...

    async def publish_later(self, payload: object, delay: float) -> None:
        """As `publish`; the broker delivers it `delay` seconds from now.

        Raises:
            NotImplementedError: the library has no delays of its own.
        """
        ...

    def consume(self, handle: Handle, *, prefetch: int) -> AbstractAsyncContextManager[None]:
        """Take messages while the context is open; leaving it acknowledges what was handled."""
        ...


class Connect(Protocol):
    """The function of a peer's file."""

    def __call__(self, url: str, queue: str) -> AbstractAsyncContextManager[Peer]:
        """Connect; the peer's queue is named after `queue` and made if it is not there."""
        ...


_FOLDER = Path(__file__).with_name("peers")


def names() -> list[str]:
    """Return the names of all peers."""
    return sorted(path.stem for path in _FOLDER.glob("*.py"))


def load(name: str) -> Connect:
    """Return the function that connects the peer `name`."""
    connect: Connect = import_module(f"benchmarks.peers.{name}").connect
    return connect
