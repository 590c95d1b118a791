"""The seam for what is only asked and declared, and the connection that is for.

A refused declaration, a dead letter that cannot be read, a driver that gives up: none of it can
harm a connection that carries tasks. The connection is made when somebody asks and closed when
nobody has for a while; its driver is loaded with the first question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from cluster_kit_amqp.backoff import Backoff
from cluster_kit_amqp.link import DialFailed, Incoming, LinkDown, Message, QueueCounts

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.options import Host, Options

log = logging.getLogger(__name__)

ExchangeKind = Literal["direct", "fanout", "topic"]
Arguments = Mapping[str, "str | int"]

IDLE_SECONDS = 10.0
"""How long the connection stays when nobody asks."""


_NOT_CONNECTED = "the adapter is not connected"


class ControlChannel(Protocol):
    """One channel for questions and declarations.

    Every call raises `LinkDown` or `ChannelDown`; a call that is refused by the broker ends the
    channel, and so does one that is cancelled.
    """

    async def declare_exchange(self, name: str, kind: ExchangeKind) -> None:
        """Make a durable exchange, or compare with the one there is."""
        ...

    async def declare_queue(self, name: str, arguments: Arguments) -> None:
        """Make a durable queue, or compare with the one there is."""
        ...

    async def declare_exclusive(self, name: str) -> None:
        """Make a queue only this link may use and that goes with it."""
        ...

    async def check_exchange(self, name: str) -> None:
        """Raise `ChannelDown` with code 404 when there is no such exchange."""
        ...

    async def check_queue(self, name: str) -> QueueCounts:
        """Return a queue's counts, or raise `ChannelDown` with code 404."""
        ...

    async def bind_queue(self, queue: str, exchange: str, key: str) -> None:
        """Let `exchange` route `key` to `queue`."""
        ...

    async def bind_exchange(self, target: str, source: str, key: str) -> None:
        """Let `source` route `key` to the exchange `target`."""
        ...

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all in it."""
        ...

    async def purge(self, queue: str) -> int:
        """Drop the ready messages and return how many."""
        ...

    async def publish(self, exchange: str, key: str, message: Message) -> None:
        """Publish body and message id, mandatory and persistent; return when confirmed.

        The channel must have been opened with confirms. Raises as `link.Channel.publish`.
        """
        ...

    async def get(self, queue: str) -> Incoming | None:
        """Take one message, or return None when none is ready."""
        ...

    async def ack(self, tag: int) -> None:
        """Settle a message that was taken; returns when the bytes have left."""
        ...

    async def requeue(self, tag: int, *, multiple: bool = False) -> None:
        """Return a message, with `multiple` all unsettled ones up to it; as `ack`."""
        ...


class ControlLink(Protocol):
    """A connection for questions and declarations."""

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        ...

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes on this link now; None when it does."""
        ...

    def channel(self, *, confirms: bool = False) -> AbstractAsyncContextManager[ControlChannel]:
        """Open a channel that is closed with the context."""
        ...

    async def close(self) -> None:
        """Close it in good order. Never raises `LinkError`, bounded in time."""
        ...


class ControlDial(Protocol):
    """Makes a control link to one host; raises `DialFailed`. The caller bounds the time."""

    async def __call__(self, host: Host) -> ControlLink:
        """Make the link."""
        ...


class Control:
    """The connection for questions and declarations, made when needed.

    Args:
        dial: makes a link.
        options: of the URL.
        context: of the port.
    """

    def __init__(self, dial: ControlDial, options: Options, context: AdapterContext) -> None:
        self._dial, self._options, self._context = dial, options, context
        self._hosts = list(options.hosts)
        if options.shuffle:
            context.random.shuffle(self._hosts)
        self._link: ControlLink | None = None
        self._users: dict[ControlLink, int] = {}
        self._dialling = asyncio.Lock()
        self._backoff = Backoff(context)
        self._not_before = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._shut = True

    def open(self) -> None:
        """Let there be a connection from now on, when somebody asks."""
        self._shut = False

    @asynccontextmanager
    async def link(self) -> AsyncGenerator[ControlLink, None]:
        """Have the link for the length of the context.

        After a dial that failed, or a link that was lost in use, the next waits, longer each
        time, so that whoever insists does not press.

        Raises:
            LinkDown: none could be made.
        """
        link = await self._usable()
        self._users[link] = self._users.get(link, 0) + 1
        try:
            yield link
        finally:
            if link.lost is None:
                self._backoff.reset()
                self._not_before = 0.0
            elif link is self._link:
                self._link = None
                self._put_off()
            await self._left(link)

    async def close(self) -> None:
        """Close the connection; there is none until `open`. Idempotent, legal before `open`."""
        self._shut = True
        link, self._link = self._link, None
        self._stop_timer()
        if link is not None:
            await link.close()

    async def _usable(self) -> ControlLink:
        async with self._dialling:
            self._stop_timer()
            link = self._link
            # One that is blocked answers nothing; whoever is on it keeps it.
            if link is not None and link.lost is None and link.blocked is None:
                return link
            self._link = None
            if link is not None and link not in self._users:
                await link.close()
            link = await self._dial_any()
            if self._shut:
                await link.close()
                raise LinkDown(_NOT_CONNECTED, sent=False)
            self._link = link
            return link

    async def _left(self, link: ControlLink) -> None:
        self._users[link] -= 1
        if self._users[link]:
            return
        del self._users[link]
        if link is self._link:
            self._stop_timer()
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(IDLE_SECONDS, self._close_idle)
        else:
            await link.close()

    def _stop_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close_idle(self) -> None:
        """Nobody has asked for a while."""
        link = self._link
        if link is not None and link not in self._users:
            self._link = None
            self._context.tasks.spawn(link.close(), name="amqp control connection close")

    # --- dialling ----------------------------------------------------------------------------

    async def _dial_any(self) -> ControlLink:
        """Make a link to the first host that lets us."""
        if self._shut:
            raise LinkDown(_NOT_CONNECTED, sent=False)
        clock = self._context.clock
        await clock.sleep(max(0.0, self._not_before - clock.monotonic()))
        failures: list[str] = []
        for host in self._hosts:
            try:
                link = await self._dial_within(host)
            except DialFailed as exc:
                failures.append(f"{host}: {exc.reason}")
            else:
                return link
        self._put_off()
        raise LinkDown("; ".join(failures), sent=False)

    def _put_off(self) -> None:
        """Let the next attempt wait."""
        self._not_before = self._context.clock.monotonic() + self._backoff.next()

    async def _dial_within(self, host: Host) -> ControlLink:
        timeout = self._options.connect_timeout or self._context.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(host)
        except TimeoutError:
            raise DialFailed(f"no answer within {timeout:.3g} s") from None
