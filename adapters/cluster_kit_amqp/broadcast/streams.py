"""The stream of a realm, as one instance reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit_amqp.broadcast.names import exchange_name, stream_name, stream_steps
from cluster_kit_amqp.broadcast.source import Consumption, refuse
from cluster_kit_amqp.control.seam import NOT_FOUND
from cluster_kit_amqp.link import ChannelDown, LinkError

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.broadcast.source import Refusals
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.link import Incoming, Link

PREFETCH = 200
OFFSET = "x-stream-offset"

_FIRST_WITHIN = 2.0  # seconds for the first message of a stream that had some
_EMPTY_WITHIN = 0.25  # seconds for the first message of one that may never have had any
_QUIET = 0.1  # seconds without another message: the end of the stream, as good as
_LONGEST_LOOK = 1.0  # seconds; a stream that is always being written to has no end


class Stream:
    """Reads a stream on from where it was.

    RabbitMQ says nothing when it has not what is asked for: a reader beyond the end waits, one
    before the beginning is given what there is. So both ends are looked at after each loss.
    """

    def __init__(self, realm: str, declarer: Declarer, context: AdapterContext) -> None:
        self._declarer = declarer
        self._exchange = exchange_name(context.app, realm, "stream")
        self._steps = stream_steps(context.app, realm, context.broadcasts)
        self._next: int | None = None  # offset; None while none was ever seen
        self._begun = False
        self.name: str = stream_name(context.app, realm)
        self.bound: set[Binding] = set()

    async def open(self, link: Link) -> str | None:
        """Find out where to begin, or whether it can go on where it was."""
        if not self._begun or not await _exists(link, self.name):
            self._declarer.forget(self._exchange)
            await self._declarer.ensure(link, self._exchange, self._steps)
        try:
            if self._begun:
                return await self._go_on(link, self._next or 0)
            last = await last_offset(link, self.name, patience=_EMPTY_WITHIN)
        except ChannelDown as exc:
            refuse(self.name, exc)
        self._next, self._begun = None if last is None else last + 1, True
        return None

    async def _go_on(self, link: Link, wanted: int) -> str | None:
        """Go on at `wanted` where that is possible; return why not."""
        self._next = wanted
        if wanted:
            last = await last_offset(link, self.name, at_least=wanted - 1, patience=_FIRST_WITHIN)
            if last is None or last < wanted - 1:
                self._next = 0
                return "the stream was made anew"
        first = await first_offset(link, self.name, patience=_EMPTY_WITHIN)
        if first is not None and first > wanted:
            return "the stream does not go back so far any more"
        return None

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

    def took(self, incoming: Incoming) -> None:
        """Note where to go on."""
        offset = _offset(incoming)
        if offset is not None:
            self._next = offset + 1

    async def leave(self, link: Link) -> None:  # noqa: ARG002 - too
        """Forget where to go on; the stream is everybody's and stays."""
        self._next, self._begun = None, False
        self.bound.clear()


async def _exists(link: Link, stream: str) -> bool:
    try:
        async with link.channel() as channel:
            await channel.check_queue(stream)
    except ChannelDown as exc:
        if exc.code != NOT_FOUND:
            refuse(stream, exc)
        return False
    return True


def _offset(incoming: Incoming) -> int | None:
    value = incoming.message.headers.get(OFFSET)
    return value if isinstance(value, int) else None


async def first_offset(link: Link, stream: str, *, patience: float) -> int | None:
    """Return the offset of the oldest message, None where none comes within `patience` seconds.

    Raises:
        LinkError: the link or a channel failed.
    """
    return await _read(link, stream, "first", lambda _: True, patience)


async def last_offset(
    link: Link, stream: str, *, patience: float, at_least: int | None = None
) -> int | None:
    """Return the offset of the newest message, or one that is `at_least` what is asked about.

    "Last" is the beginning of the last part that was written at once, so it is read to its end.
    The broker's count of a stream's messages is of no use: it is minutes old.

    Raises:
        LinkError: the link or a channel failed.
    """

    def enough(offset: int) -> bool:
        return at_least is not None and offset >= at_least

    return await _read(link, stream, "last", enough, patience)


async def _read(
    link: Link, stream: str, start: str, enough: Callable[[int], bool], patience: float
) -> int | None:
    """Return the offset of the last message read, None where there is none."""
    async with link.channel() as channel:
        seen: list[int] = []
        came = asyncio.Event()

        def take(_: str, incoming: Incoming) -> None:
            offset = _offset(incoming)
            if offset is not None and not (seen and enough(seen[-1])):
                seen[:] = [offset]
            came.set()
            with suppress(LinkError):
                channel.ack(incoming.tag)

        await channel.consume(
            stream,
            prefetch=PREFETCH,
            on_message=take,
            on_cancelled=lambda _: None,
            arguments={OFFSET: start},
        )
        await _until_quiet(came, lambda: bool(seen) and enough(seen[-1]), patience)
        return seen[-1] if seen else None


async def _until_quiet(came: asyncio.Event, enough: Callable[[], bool], patience: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await came.wait()
    if not came.is_set():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_LOOK):
            while not enough():
                came.clear()
                async with asyncio.timeout(_QUIET):
                    await came.wait()
