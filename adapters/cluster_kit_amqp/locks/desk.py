"""The connection of an instance's locks: its channels, its tokens, and when the broker heard us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.clock import BootClock
from cluster_kit_amqp.connection.together import Connections
from cluster_kit_amqp.link import (
    Channel,
    ChannelDown,
    Incoming,
    Link,
    LinkError,
    Nacked,
    QueueCounts,
)
from cluster_kit_amqp.locks.names import EXCHANGE, SeenFences, lock_queue, lock_steps, make_token

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, TaskSpawner

T = TypeVar("T")

HEARTBEAT = 5
"""Seconds at most: the shorter, the earlier a holder that vanished is noticed."""

_MARGIN = 0.5  # seconds; clocks of two machines
_FREE_CHANNELS = 20
_MOST_MADE = 20  # queues at a time: renewals are not to wait behind hundreds of them
_MOST_ENTERING = 40  # lines of locks at a time, likewise
_MOST_WORKING = 10_000  # queues known to be there and to work; beyond, they are made sure of again
_PAUSE_SECONDS = 0.01
_SILENCE_SECONDS = 2.0  # after which an unanswered question is held against its channel
_MICROSECONDS = 1_000_000


def leash(heartbeat: int) -> float:
    """Return for how long the broker leaves a silent connection alone, seconds.

    It looks at every interval and ends a connection at the second look in a row that finds
    nothing new, so never before two intervals.
    """
    return max(2 * heartbeat - _MARGIN, _MARGIN)


class Seat:
    """A channel, used for one claim after another. `lost` says why it is of no use any more."""

    def __init__(self, link: Link, channel: Channel) -> None:
        self.link = link
        self.channel = channel
        self.lost: str | None = None
        self.on_lost: Callable[[str], None] | None = None
        channel.on_closed(self._closed)

    def _closed(self, reason: str) -> None:
        self.lost = reason
        if self.on_lost is not None:
            self.on_lost(reason)


class Desk:
    """What the locks of an instance share.

    Tokens are published on a connection of their own: one that publishes is not read from while
    the broker is short of memory, and no lock could be given back.

    Args:
        url: see `cluster_kit_amqp.options`.
        context: of the instance.

    Attributes:
        connections: of the locks.
        tasks: starts what nobody waits for.
        clock: by which a connection is known to be alive.
        fences: that were seen.
        entrance: lets so many get in line at a time as can before their time is over.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self.connections: Connections = Connections(
            url,
            context,
            publish="locks publish",
            consume="locks consume",
            most_heartbeat=HEARTBEAT,
        )
        self.tasks: TaskSpawner = context.tasks
        self.clock: BootClock = BootClock()
        self.fences: SeenFences = SeenFences()
        self.entrance: asyncio.Semaphore = asyncio.Semaphore(_MOST_ENTERING)
        self._declarer = self.connections.declarer()
        self._context = context
        self._free: list[Seat] = []
        self._asking: Seat | None = None
        self._opening = asyncio.Lock()
        self._making = asyncio.Semaphore(_MOST_MADE)
        self._seeding: Channel | None = None
        self._opening_to_seed = asyncio.Lock()
        self._working: set[str] = set()
        self._entering: dict[str, asyncio.Future[None]] = {}
        self._working_link: Link | None = None
        self._proof: tuple[Link | None, float] = (None, 0.0)

    @property
    def leash(self) -> float:
        """For how long the broker leaves a silent connection alone, seconds."""
        return leash(self.connections.heartbeat)

    # --- channels ----------------------------------------------------------------------------

    async def seat(self) -> Seat:
        """Return a channel nobody uses. Raises `LinkError`."""
        while self._free:
            seat = self._free.pop()
            if seat.lost is None:
                return seat
        link = await self.connections.consuming.ready()
        return Seat(link, await self._proving(link, link.open_channel()))

    def put_back(self, seat: Seat) -> None:
        """Nobody uses this channel any more, and nothing on it is unsettled."""
        seat.on_lost = None
        if seat.lost is None and len(self._free) < _FREE_CHANNELS:
            self._free.append(seat)
        else:
            self.drop(seat)

    def drop(self, seat: Seat) -> None:
        """Close a channel, which returns what is unsettled on it."""
        seat.on_lost = None
        if seat.lost is None:
            self._context.tasks.spawn(seat.channel.close(), name="amqp lock channel closes")

    async def ask(self, queue: str) -> QueueCounts:
        """Return the counts of a queue; `ChannelDown` with 404 when there is none.

        Asked on a channel for questions, which one that is refused ends. Whoever gives up waiting
        leaves it to the others: their answers come behind his.
        """
        async with self._opening:
            link = await self.connections.consuming.ready()
            seat = self._asking
            if seat is None or seat.lost is not None or seat.link is not link:
                seat = Seat(link, await self._proving(link, link.open_channel()))
                self._asking = seat
        answer: asyncio.Future[QueueCounts] = asyncio.get_running_loop().create_future()
        self._context.tasks.spawn(self._hear(seat, queue, answer), name="amqp lock question")
        return await answer

    async def _hear(self, seat: Seat, queue: str, answer: asyncio.Future[QueueCounts]) -> None:
        """Ask, and tell the answer if somebody still wants it."""
        error: Exception
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                counts = await self.counts(seat, queue)
        except ChannelDown as exc:
            if self._asking is seat:
                self._asking, error = None, exc
            else:  # refused was who heard of it first; the others stood behind him
                error = ChannelDown(0, exc.reason)
        except (LinkError, TimeoutError) as exc:
            error = exc
        else:
            if not answer.done():
                answer.set_result(counts)
            return
        if not answer.done():
            answer.set_exception(error)

    async def counts(self, seat: Seat, queue: str) -> QueueCounts:
        """As `ask`, on a channel of the caller's."""
        return await self._proving(seat.link, seat.channel.check_queue(queue))

    async def consume(
        self,
        seat: Seat,
        queue: str,
        on_message: Callable[[str, Incoming], None],
        on_cancelled: Callable[[str], None],
        *,
        prefetch: int,
    ) -> str:
        """Start a consumer; see `cluster_kit_amqp.link.Channel.consume`."""
        starting = seat.channel.consume(
            queue, prefetch=prefetch, on_message=on_message, on_cancelled=on_cancelled
        )
        return await self._proving(seat.link, starting)

    @contextmanager
    def in_order(self, name: str) -> Generator[asyncio.Future[None] | None]:
        """Get in line within; give what is done when who came before has done so.

        The channels of one connection are served side by side, so what is sent first need not
        arrive first. Who gives up leaves those behind him to wait for whom he stood behind.
        """
        before = self._entering.get(name)
        mine = self._entering[name] = asyncio.get_running_loop().create_future()
        try:
            yield before
        except BaseException:
            if before is None:
                self._entered(name, mine)
            else:
                before.add_done_callback(lambda _: self._entered(name, mine))
            raise
        self._entered(name, mine)

    def _entered(self, name: str, mine: asyncio.Future[None]) -> None:
        mine.set_result(None)
        if self._entering.get(name) is mine:
            del self._entering[name]

    # --- the topology ------------------------------------------------------------------------

    async def prepare(self, name: str) -> None:
        """Make sure of a lock's queue. Raises `LinkError` or `TopologyError`."""
        link, queue = await self.connections.consuming.ready(), lock_queue(name)
        if not self._declarer.is_settled(link, queue):
            async with self._making:
                await self._declarer.ensure(link, queue, lock_steps(queue))
        if len(self._working) > _MOST_WORKING:
            self._working_link, self._declarer = None, self.connections.declarer()
        if link is not self._working_link:
            self._working_link, self._working = link, set()
        if name not in self._working:
            await self.see_it_work(name)
            self._working.add(name)

    async def see_it_work(self, name: str) -> None:
        """Return when a lock's queue has a token or somebody in line.

        One that several make at the same time is there before it works. Who gets in line by then
        is answered with 541, which ends the connection with all that is held on it; a token is
        only refused.
        """
        counts = await self.ask(lock_queue(name))
        if counts.ready or counts.consumers:
            return
        while not await self._takes_a_token(name):
            await self._context.clock.sleep(_PAUSE_SECONDS)

    async def _takes_a_token(self, name: str) -> bool:
        try:
            await self.seed(name)
        except Nacked:
            return False
        return True

    def doubt(self, name: str) -> None:
        """The queue of a lock may be gone: look again."""
        self._declarer.forget(lock_queue(name))
        self._working.discard(name)

    async def seed(self, name: str, *, base: int | None = None) -> None:
        """Put a token into a lock's queue; one too many does no harm. Raises `LinkError`.

        Args:
            name: of the lock.
            base: of its fences; default the clock, in microseconds, or what follows those seen.
        """
        if base is None:
            base = self.fences.next(name, round(self._context.clock.wall() * _MICROSECONDS))
        link = await self.connections.publishing.writable()
        async with self._opening_to_seed:  # else each of many new keys opens one of its own
            channel = self._seeding
            if channel is None or not channel.open:
                channel = self._seeding = await link.open_channel(confirms=True)
        await channel.publish(EXCHANGE, lock_queue(name), make_token(base))

    # --- being heard -------------------------------------------------------------------------

    async def _proving(self, link: Link, call: Awaitable[T]) -> T:
        """Await an answer of the broker, which has then heard us since the question was sent."""
        asked_at = self.clock.monotonic()
        answer = await call
        self.heard(link, asked_at)
        return answer

    def heard(self, link: Link, at: float) -> None:
        """The broker has heard of this link at or after `at`."""
        known, since = self._proof
        if known is not link or at > since:
            self._proof = (link, at)

    def certain_until(self, link: Link) -> float:
        """Return the reading of the clock until which the broker takes a link to be alive."""
        known, since = self._proof
        if known is not link or link.lost is not None:
            return 0.0
        return since + leash(link.server.heartbeat)

    async def close(self) -> None:
        """Close the connections, and with them every channel."""
        self._free.clear()
        self._asking = self._seeding = None
        await self.connections.close()
