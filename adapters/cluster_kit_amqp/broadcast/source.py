"""Where an instance's broadcasts come from, one source for each transport."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from cluster_kit.errors import TopologyError
from cluster_kit_amqp.control.conflicts import conflict
from cluster_kit_amqp.control.seam import ACCESS_REFUSED, LOCKED, NOT_FOUND, PRECONDITION_FAILED
from cluster_kit_amqp.topology import Queue

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit_amqp.link import ChannelDown, Incoming, Link

_NOT_OURS = frozenset({ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION_FAILED})

Refusals = Mapping["Binding", TopologyError]


class Consumption(NamedTuple):
    """What to consume, and how."""

    queue: str
    prefetch: int
    arguments: Mapping[str, object]


class Source(Protocol):
    """A queue or stream as one instance uses it, over all its connections.

    Methods that take a link raise `TopologyError` for what will not get better by itself, and
    `LinkError` for what may.

    Attributes:
        name: for people.
        bound: what the broker leads here for certain.
        held: what it may lead here, that is also what it did before a loss.
        shared: whether the broker gives it to an earlier connection, too; see `sharing`.
    """

    name: str
    bound: set[Binding]
    held: set[Binding]
    shared: bool

    async def open(self, link: Link) -> str | None:
        """Make it ready on a new link; return why messages may be missing, or None.

        To be called again on the same link where that failed.
        """
        ...

    async def look(self, link: Link, /) -> None:
        """Find out whether it is `shared` still. To be called while it is consumed."""
        ...

    async def bind(self, link: Link, /, bindings: Iterable[Binding]) -> Refusals:
        """Lead these here as well; return which of them the broker will not."""
        ...

    async def unbind(self, link: Link, /, bindings: Iterable[Binding]) -> None:
        """Lead these here no more."""
        ...

    def consumption(self) -> Consumption:
        """Return what is to be consumed now."""
        ...

    def took(self, incoming: Incoming) -> str | None:
        """Note a message that is being handed over; return why some before it may be missing."""
        ...

    async def leave(self, link: Link, /) -> None:
        """Remove what is this instance's own."""
        ...


def topology_error(subject: str, error: ChannelDown) -> TopologyError | None:
    """Return the error for what the broker refused for good, or None where it may yet work."""
    if error.code == PRECONDITION_FAILED:
        return conflict(Queue(subject, {}), error.reason)
    if error.code in _NOT_OURS:
        return TopologyError(f"queue {subject!r}", error.reason)
    return None


def refuse(subject: str, error: ChannelDown) -> NoReturn:
    """Raise what `topology_error` returns, or the error itself."""
    found = topology_error(subject, error)
    if found is None:
        raise error
    raise found from error
