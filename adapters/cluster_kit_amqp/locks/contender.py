"""A claim while it waits for its token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit.errors import LockUnavailable, TopologyError
from cluster_kit.ports import Grant
from cluster_kit_amqp.control.seam import NOT_FOUND
from cluster_kit_amqp.link import ChannelDown, LinkError, QueueCounts
from cluster_kit_amqp.locks.names import lock_queue
from cluster_kit_amqp.locks.session import Session

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, Claim
    from cluster_kit_amqp.locks.desk import Desk

_ORDER_SECONDS = 0.25  # over a slow line, who comes together stands in any order

Take = Callable[[Session, float], float]
"""Called with a session that has the token and the time before it was asked for."""

_SEED_SECONDS = 10.0
"""After which somebody in line seeds again: the one who was to may have died before."""

_SEEDING_SECONDS = 2.0
_TOKEN_SECONDS = 1.0  # in which a token must come to who is alone in line
_LAG_SECONDS = 0.02
_MOST_AGE = 0.5  # of what is certain of a connection; an older word of the broker is asked anew


async def behind(other: asyncio.Future[None] | None) -> None:
    """Let another of this instance get in line first, unless that takes long."""
    if other is not None:
        await asyncio.wait([other], timeout=_ORDER_SECONDS)


class AmqpContender:
    """Implements `cluster_kit.ports.Contender`.

    Each attempt is a place in the broker's line, which hands over in the order of coming; who does
    not wait leaves it at once.
    """

    unsure = False  # nothing is repeated below
    asked = False  # nothing is kept for a token: with its channel a place in line is gone

    def __init__(self, claim: Claim, desk: Desk, context: AdapterContext, take: Take) -> None:
        self._claim = claim
        self._desk = desk
        self._context = context
        self._take = take
        self._session: Session | None = None
        self._taken = False  # the session by the adapter: it is no longer for us to end
        self._alone = False  # nobody had the lock or stood before us, and no token came yet
        self._seeded = False

    async def attempt(self, *, timeout: float) -> Grant | None:
        """Ask once; see the port.

        Raises:
            LockUnavailable: no answer within `timeout` seconds, or an error.
        """
        name = self._claim.name
        since = self._desk.clock.monotonic()
        try:
            async with asyncio.timeout(timeout):
                session = await self._attempt()
                if session is None:
                    return None
                await self._prove(session)
        except TimeoutError as exc:
            raise LockUnavailable(name, "no answer in time") from exc
        except (LinkError, TopologyError) as exc:
            raise LockUnavailable(name, str(exc)) from exc
        if not session.granted:
            raise LockUnavailable(name, session.lost or "the token is gone")
        self._taken = True
        if not session.hold():
            session.refresh()
        valid_for = self._take(session, since)
        return Grant(fence=session.fence, valid_for=valid_for, gone=session.gone)

    async def _attempt(self) -> Session | None:
        """Return a session that has the token; None when somebody else has it."""
        session = self._session
        if session is None or session.lost is not None:
            session, counts = await self._open()
            self._alone, self._seeded = not counts.consumers, bool(counts.ready)
            if not self._alone:
                await self._expect(session)
        if self._alone and not session.granted:
            await self._seed()
            await self._expect(session)
            self._alone = False
        return session if session.granted else None

    async def _open(self) -> tuple[Session, QueueCounts]:
        """Return a session in line, and the counts of the queue before."""
        try:
            return await self._sit()
        except ChannelDown as exc:
            if exc.code != NOT_FOUND:
                raise
            self._desk.doubt(self._claim.name)  # it expired since it was made
            return await self._sit()

    async def _sit(self) -> tuple[Session, QueueCounts]:
        name = self._claim.name
        with self._desk.in_order(name) as before:
            await self._desk.prepare(name)
            async with self._desk.entrance:
                seat = await self._desk.seat()
                try:
                    counts = await self._desk.counts(seat, lock_queue(name))
                    if not counts.ready and not counts.consumers:  # perhaps just made anew
                        await self._desk.see_it_work(name)
                        counts = await self._desk.counts(seat, lock_queue(name))
                    session = Session(self._desk, self._claim, seat)
                    await behind(before)
                    await session.stand()
                except BaseException:
                    self._desk.drop(seat)
                    raise
        self._session, self._taken = session, False
        return session, counts

    async def _seed(self) -> None:
        """Bring a token where there was none, unless an attempt before this one has."""
        if not self._seeded:
            await self._desk.seed(self._claim.name)
            self._seeded = True

    async def _expect(self, session: Session) -> None:
        """Let a token come that may be on its way, unless somebody else has it.

        The counts may be those before a release whose end its holder has seen, and two who find
        nobody in line both stand there then. The token comes before the answer to a question, or
        from a node that lags a little; with none on its way and none left in the queue, another
        has it.
        """
        clock, queue = self._desk.clock, lock_queue(self._claim.name)
        until, gone = clock.monotonic() + _TOKEN_SECONDS, False
        while not session.came.is_set() and clock.monotonic() < until:
            counts = await self._desk.counts(session.seat, queue)
            if session.came.is_set() or (gone and not counts.ready):
                return
            gone = not counts.ready
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAG_SECONDS):
                    await session.came.wait()

    async def _prove(self, session: Session) -> None:
        """Make sure that the token is not one the broker has given to somebody else since.

        An instance that was stopped reads what had come before, when it goes on.
        """
        link = session.seat.link
        left = self._desk.certain_until(link) - self._desk.clock.monotonic()
        if left < _MOST_AGE * self._desk.leash:
            await self._desk.counts(session.seat, lock_queue(self._claim.name))

    async def changed(self) -> None:
        """Return when the token has come, or the place in line is lost."""
        session = self._session
        if session is None or session.lost is not None:
            return
        while not session.came.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_SEED_SECONDS * self._context.random.uniform(0.5, 1.5)):
                    await session.came.wait()
                    return
            with suppress(LinkError, TimeoutError):
                async with asyncio.timeout(_SEEDING_SECONDS):
                    await self._desk.seed(self._claim.name)

    def leave(self) -> None:
        """Get out of the line; see the port."""
        session, self._session = self._session, None
        if session is not None and session.lost is None and not self._taken:
            session.leave()
