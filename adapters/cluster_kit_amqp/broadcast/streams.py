"""The stream of a realm, as one instance reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit_amqp.broadcast.names import exchange_name, stream_name, stream_steps
from cluster_kit_amqp.broadcast.source import Consumption, refuse
from cluster_kit_amqp.control.seam import NOT_FOUND
from cluster_kit_amqp.link import ChannelDown, LinkDown

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.broadcast.source import Refusals
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.link import Incoming, Link

PREFETCH = 200
OFFSET = "x-stream-offset"

_READ_WITHIN = 5.0  # seconds for a message that was there; after them a gap is told instead

_AWAY = "inaccessible"  # says the broker of what it has, on a node that is away
_MADE_ANEW = "the stream was made anew"
_CUT = "the stream does not go back so far any more"
_NOTHING_READ = "nothing had been read of the stream"
_SILENT = f"the stream did not show within {_READ_WITHIN:g} s what had been read last"


class Stream:
    """Reads a stream on from where it was.

    RabbitMQ says nothing when it has not what is asked for: a reader beyond the end waits, one
    before the beginning is given what there is. It also says nothing while it is busy. So what was
    read last is read again after each loss: if it comes, and is the same, nothing is missing. If
    not, that is a gap, and reading goes on with what is new; nothing that may be old is read.
    """

    def __init__(self, realm: str, declarer: Declarer, context: AdapterContext) -> None:
        self._declarer = declarer
        self._exchange = exchange_name(context.app, realm, "stream")
        self._steps = stream_steps(context.app, realm, context.broadcasts)
        self._begun = False
        self._next: int | None = None  # offset; None while it is unknown: what is new, then
        self._last: Incoming | None = None  # right before that
        self._may_be_cut = False
        self.name: str = stream_name(context.app, realm)
        self.bound: set[Binding] = set()
        self.held = self.bound  # the broker knows of none
        self.shared: bool = False  # each reader is given all

    async def open(self, link: Link) -> str | None:
        """Find out where to begin, or whether it can go on where it was."""
        there, before = await _exists(link, self.name), self._begun
        if not (there and before):
            self._declarer.forget(self._exchange)
            await self._declarer.ensure(link, self._exchange, self._steps)
            self._begun = True
        if not there:  # all that is ever in it comes after this
            self._next, self._last = 0, None
            return _MADE_ANEW if before else None
        return await self._look_back(link) if before else None

    async def _look_back(self, link: Link) -> str | None:
        """Return why messages behind the last one may be missing."""
        if self._next is None:
            return _NOTHING_READ
        if self._last is None:  # it was empty; what comes first tells whether it has been cut since
            self._may_be_cut = True
            return None
        again = await _read(link, self.name, self._next - 1)
        if again is not None and _offset(again) != self._next - 1:
            return _CUT
        if again is not None and _is_same(again, self._last):
            return None
        self._next = self._last = None
        return _SILENT if again is None else _MADE_ANEW

    async def look(self, link: Link) -> None:
        """Nothing is to be found out."""

    async def bind(self, link: Link, bindings: Iterable[Binding]) -> Refusals:  # noqa: ARG002 - the port's
        """All of the realm comes here already."""
        self.bound.update(bindings)
        return {}

    async def unbind(self, link: Link, bindings: Iterable[Binding]) -> None:  # noqa: ARG002 - too
        """It comes nevertheless, and is passed over."""
        self.bound.difference_update(bindings)

    def consumption(self) -> Consumption:
        """Return from where to read."""
        start = "next" if self._next is None else self._next
        return Consumption(queue=self.name, prefetch=PREFETCH, arguments={OFFSET: start})

    def took(self, incoming: Incoming) -> str | None:
        """Note where to go on; return why messages before this one may be missing."""
        offset = _offset(incoming)
        if offset is None:
            return None
        cut = self._may_be_cut and offset > (self._next or 0)
        self._next, self._last, self._may_be_cut = offset + 1, incoming, False
        return _CUT if cut else None

    async def leave(self, link: Link) -> None:  # noqa: ARG002 - too
        """Forget where to go on; the stream is everybody's and stays."""
        self._next, self._last, self._begun = None, None, False
        self._may_be_cut = False
        self.bound.clear()


async def _exists(link: Link, stream: str) -> bool:
    try:
        async with link.channel() as channel:
            await channel.check_queue(stream)
    except ChannelDown as exc:
        if exc.code != NOT_FOUND:
            refuse(stream, exc)
        if _AWAY in exc.reason:
            raise
        return False
    return True


def _offset(incoming: Incoming) -> int | None:
    value = incoming.message.headers.get(OFFSET)
    return value if isinstance(value, int) else None


def _is_same(one: Incoming, other: Incoming) -> bool:
    ids = one.message.message_id, other.message.message_id
    return ids[0] == ids[1] and (one.key, one.message.body) == (other.key, other.message.body)


async def _read(link: Link, stream: str, offset: int) -> Incoming | None:
    """Return the message at an offset, or the first behind it; None where none comes.

    Raises:
        LinkError: the link or the channel failed, so it could not come.
        TopologyError: the broker will not.
    """
    came: asyncio.Future[Incoming | LinkDown] = asyncio.get_running_loop().create_future()

    def take(_: str, incoming: Incoming) -> None:
        if not came.done():
            came.set_result(incoming)

    def fail(reason: str) -> None:
        if not came.done():
            came.set_result(LinkDown(reason))

    try:
        async with link.channel() as channel:
            channel.on_closed(fail)
            await channel.consume(
                stream,
                prefetch=1,
                on_message=take,
                on_cancelled=lambda _: fail("the broker cancelled the consumer"),
                arguments={OFFSET: offset},
                routed=True,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(_READ_WITHIN):
                    found = await came
                    if isinstance(found, LinkDown):
                        raise found
                    return found
            await channel.check_queue(stream)  # it is the stream that is silent, not the line
            return None
    except ChannelDown as exc:
        refuse(stream, exc)
