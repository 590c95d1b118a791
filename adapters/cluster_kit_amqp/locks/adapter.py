"""Locks on RabbitMQ: puts the parts together."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit.errors import LockUnavailable, TopologyError
from cluster_kit.ports import LockCapabilities, LockHolder
from cluster_kit_amqp.control.seam import NOT_FOUND
from cluster_kit_amqp.link import ChannelDown, LinkError
from cluster_kit_amqp.locks.contender import AmqpContender
from cluster_kit_amqp.locks.desk import Desk, leash
from cluster_kit_amqp.locks.names import lock_queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cluster_kit.ports import AdapterContext, Claim, Health
    from cluster_kit_amqp.locks.session import Session

log = logging.getLogger(__name__)

CAPABILITIES = LockCapabilities(
    backend="amqp",
    scope="server",
    exclusion="until the broker ends the holder's connection, of which the holder hears at once "
    "unless the network is broken in between",
    ttl_grain=0.0,
    least_ttl=0.1,
    fence="strict",
    wake_up="push",
    fair=True,
)
_GIVE_BACK_SECONDS = 2.0
_LOOKS, _PAUSE_SECONDS = 4, 0.01
_SOMEBODY = "somebody; the broker does not tell who"


class AmqpLocks:
    """A `LockAdapter` on RabbitMQ.

    A lock is its holder's as long as the broker takes the holder's connection to be alive. The ttl
    is kept by the holder's own instance: one that lives gives a lock back that nobody renews, and
    one that is dead or cut off has its connection ended by the broker.

    Args:
        url: see `cluster_kit_amqp.options`; a ``heartbeat`` above 5 s counts as 5 s here.
        context: of the instance.

    Raises:
        UnknownOptionError: the URL has an option nothing reads.
        ConfigurationError: the URL is wrong otherwise, or a certificate file is.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._context = context
        self._desk = Desk(url, context)
        self._held: dict[str, Session] = {}
        heartbeat = self._desk.connections.heartbeat
        self._capabilities = replace(CAPABILITIES, leash=leash(heartbeat))

    @property
    def capabilities(self) -> LockCapabilities:
        """What its locks promise."""
        return self._capabilities

    # --- life --------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        Raises:
            ConnectError: no host could be used.
        """
        await self._desk.connections.open()

    async def close(self) -> None:
        """Close the connections, by which everything is given back. Idempotent."""
        held, self._held = self._held, {}
        for session in held.values():
            session.leave()
        await self._desk.close()

    def warnings(self) -> Sequence[str]:
        """Return nothing: what may end a lock is what `capabilities` says."""
        return ()

    def health(self) -> Health:
        """Return the state as known now."""
        return self._desk.connections.health()

    # --- locks -------------------------------------------------------------------------------

    def contend(self, claim: Claim) -> AmqpContender:
        """Begin to wait for a lock."""
        return AmqpContender(claim, self._desk, self._context, self._take)

    def _take(self, session: Session, since: float) -> float:
        """A contender has the token. Return for how long it is valid from `since`."""
        self._held[session.claim.token] = session
        session.gone.add_done_callback(lambda _: self._forget(session))
        return self._valid_for(session, session.claim.ttl, since)

    def _forget(self, session: Session) -> None:
        if self._held.get(session.claim.token) is session:
            del self._held[session.claim.token]

    def _valid_for(self, session: Session, ttl: float, since: float) -> float:
        session.ends = since + ttl
        self._watch(session)
        return min(ttl, self._desk.certain_until(session.seat.link) - since)

    def _watch(self, session: Session) -> None:
        """Give a lock back when its ttl is over and nobody has renewed it."""
        left = 0.0 if session.ends is None else session.ends - self._desk.clock.monotonic()
        if session.timer is not None:
            session.timer.cancel()
        if left <= 0:
            name = f"amqp lock {session.claim.name} is over"
            self._context.tasks.spawn(self._give_back(session.claim), name=name)
        else:
            loop = asyncio.get_running_loop()
            session.timer = loop.call_later(left, self._watch, session)

    async def _give_back(self, claim: Claim) -> None:
        try:
            await self.release(claim, timeout=_GIVE_BACK_SECONDS)
        except LockUnavailable as exc:
            log.warning("lock %r is given back by closing its channel: %s", claim.name, exc.reason)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        """Let a held lock live for its ttl from now.

        Raises:
            LockUnavailable: no answer within `timeout` seconds, or an error.
        """
        since = self._desk.clock.monotonic()
        session = self._held.get(claim.token)
        if session is None:
            return None
        try:
            async with self._within(claim.name, timeout):
                counts = await self._desk.ask(lock_queue(claim.name))
        except LockUnavailable as exc:
            if session.lost is not None or _missing(exc):
                return None
            raise
        if session.lost is not None or claim.token not in self._held:
            return None
        if not counts.consumers:  # we are one: whoever answered knows no leader of the queue
            raise LockUnavailable(claim.name, "the queue has no leader within reach")
        session.refresh()
        return self._valid_for(session, claim.ttl, since)

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        """Free the lock if it is this token's; whether it was. Raises as `renew`."""
        session = self._held.pop(claim.token, None)
        if session is None or session.lost is not None:
            return False
        async with self._within(claim.name, timeout):
            await session.give_back()
        return True

    @property
    def quotas(self) -> None:
        """Nothing: there are no rate limits here."""

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        """Return who holds a lock, as far as the broker tells. Raises as `renew`."""
        for session in self._held.values():
            if session.claim.name == name and session.granted:
                owner, fence = session.claim.owner, session.fence
                return LockHolder(owner=owner, fence=fence, seconds_left=None)
        try:
            async with self._within(name, timeout):
                held = await self._is_held(name)
        except LockUnavailable as exc:
            if _missing(exc):
                return None
            raise
        return LockHolder(owner=_SOMEBODY, fence=None, seconds_left=None) if held else None

    async def _is_held(self, name: str) -> bool:
        """Ask several times: what is counted lags behind a release by some milliseconds."""
        seat = await self._desk.seat()
        held = True
        try:
            for look in range(_LOOKS):
                await self._context.clock.sleep(look * _PAUSE_SECONDS)
                counts = await self._desk.counts(seat, lock_queue(name))
                held = bool(counts.consumers) and not counts.ready
                if not held:
                    break
        except BaseException:
            self._desk.drop(seat)
            raise
        self._desk.put_back(seat)
        return held

    @asynccontextmanager
    async def _within(self, name: str, timeout: float) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(timeout):
                yield
        except TimeoutError as exc:
            raise LockUnavailable(name, "no answer in time") from exc
        except (LinkError, TopologyError) as exc:
            raise LockUnavailable(name, str(exc)) from exc


def _missing(error: LockUnavailable) -> bool:
    """Whether the queue is not there."""
    cause = error.__cause__
    return isinstance(cause, ChannelDown) and cause.code == NOT_FOUND
