"""A connection for declarations or for questions, made when somebody needs it.

A refused declaration, a dead letter that cannot be read, a driver that gives up: none of it can
harm a connection that carries tasks. Such a connection is closed when nobody has needed it for a
while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cluster_kit_amqp.backoff import Backoff
from cluster_kit_amqp.control.seam import OwnLink
from cluster_kit_amqp.link import DialFailed, LinkDown

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.options import Host, Options

IDLE_SECONDS = 10.0
"""How long a connection stays when nobody needs it."""

_NOT_CONNECTED = "the adapter is not connected"

L = TypeVar("L", bound=OwnLink)
L_co = TypeVar("L_co", bound=OwnLink, covariant=True)


class OwnDial(Protocol[L_co]):
    """Makes a link to one host; raises `DialFailed`. The caller bounds the time."""

    async def __call__(self, host: Host) -> L_co:
        """Make the link."""
        ...


class Control(Generic[L]):
    """A connection for declarations or for questions, made when needed.

    Args:
        dial: makes a link.
        options: of the URL.
        context: of the port.
    """

    def __init__(self, dial: OwnDial[L], options: Options, context: AdapterContext) -> None:
        self._dial, self._options, self._context = dial, options, context
        self._hosts = list(options.hosts)
        if options.shuffle:
            context.random.shuffle(self._hosts)
        self._link: L | None = None
        self._users: dict[L, int] = {}
        self._dialling = asyncio.Lock()
        self._backoff = Backoff(context)
        self._not_before = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._shut = True

    def open(self) -> None:
        """Let there be a connection from now on, when somebody asks."""
        self._shut = False

    @asynccontextmanager
    async def link(self) -> AsyncGenerator[L, None]:
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

    async def ahead(self) -> None:
        """Make the link before it is needed. A failure is told when it is."""
        with suppress(LinkDown):
            async with self.link():
                pass

    async def close(self) -> None:
        """Close the connection; there is none until `open`. Idempotent, legal before `open`."""
        self._shut = True
        link, self._link = self._link, None
        self._stop_timer()
        if link is not None:
            await link.close()

    async def _usable(self) -> L:
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

    async def _left(self, link: L) -> None:
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

    async def _dial_any(self) -> L:
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

    async def _dial_within(self, host: Host) -> L:
        timeout = self._options.connect_timeout or self._context.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(host)
        except TimeoutError:
            raise DialFailed(f"no answer within {timeout:.3g} s") from None
