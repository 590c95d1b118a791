"""The stream of a realm, as one instance reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit_amqp.broadcast.names import exchange_name, stream_name, stream_steps
from cluster_kit_amqp.broadcast.source import Consumption, refuse
from cluster_kit_amqp.link import ChannelDown, LinkError

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.broadcast.source import Refusals
    from cluster_kit_amqp.declare import Declarer
    from cluster_kit_amqp.link import Incoming, Link

PREFETCH = 200
OFFSET = "x-stream-offset"

_FIRST_WITHIN = 5.0  # seconds for the first message of a stream that has some
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
        self._next: int | None = None
        self.name: str = stream_name(context.app, realm)
        self.bound: set[Binding] = set()

    async def open(self, link: Link) -> str | None:
        """Find out where to begin, or whether it can go on where it was."""
        self._declarer.forget(self._exchange)  # somebody may have deleted the stream
        await self._declarer.ensure(link, self._exchange, self._steps)
        try:
            if self._next is None:
                last = await last_offset(link, self.name)
                self._next = 0 if last is None else last + 1
                return None
            return await self._look(link, self._next)
        except ChannelDown as exc:
            refuse(self.name, exc)

    async def _look(self, link: Link, wanted: int) -> str | None:
        """Return what is wrong with going on at `wanted`, and go on where that is possible."""
        last = await last_offset(link, self.name, at_least=wanted - 1)
        if wanted and (last is None or last < wanted - 1):
            self._next = 0
            return "the stream was made anew"
        first = await first_offset(link, self.name)
        if first is not None and first > wanted:
            return "the stream does not go back so far any more"
        return None

    async def bind(self, link: Link, bindings: Iterable[Binding]) -> Refusals:
        """All of the realm comes here already."""
        self.bound.update(bindings)
        return {}

    async def unbind(self, link: Link, bindings: Iterable[Binding]) -> None:
        """It comes nevertheless, and is passed over."""
        self.bound.difference_update(bindings)

    def consumption(self) -> Consumption:
        """Return from where to read."""
        return Consumption(queue=self.name, prefetch=PREFETCH, arguments={OFFSET: self._next or 0})

    def took(self, incoming: Incoming) -> None:
        """Note where to go on."""
        offset = _offset(incoming)
        if offset is not None:
            self._next = offset + 1

    async def leave(self, link: Link) -> None:
        """Forget where to go on; the stream is everybody's and stays."""
        self._next = None
        self.bound.clear()


def _offset(incoming: Incoming) -> int | None:
    value = incoming.message.headers.get(OFFSET)
    return value if isinstance(value, int) else None


async def first_offset(link: Link, stream: str) -> int | None:
    """Return the offset of the oldest message there is. Raises `LinkError`."""
    return await _read(link, stream, "first", lambda _: True)


async def last_offset(link: Link, stream: str, *, at_least: int | None = None) -> int | None:
    """Return the offset of the newest message, or one that is `at_least` what is asked about.

    "Last" is the beginning of the last part that was written at once, so it is read to its end.

    Raises:
        LinkError: the link or a channel failed.
    """
    return await _read(
        link, stream, "last", lambda offset: at_least is not None and offset >= at_least
    )


async def _read(link: Link, stream: str, start: str, enough: Callable[[int], bool]) -> int | None:
    """Return the offset of the last message read, None where there is none."""
    async with link.channel() as channel:
        if not (await channel.check_queue(stream)).ready:
            return None
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
        await _until_quiet(came, lambda: bool(seen) and enough(seen[-1]))
        return seen[-1] if seen else None


async def _until_quiet(came: asyncio.Event, enough: Callable[[], bool]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_WITHIN):
            await came.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_LOOK):
            while not enough():
                came.clear()
                async with asyncio.timeout(_QUIET):
                    await came.wait()
