"""Publishing: confirmed or an error that tells the truth.

One channel serves all publishes of a link; they overlap. A publish that meets a lost connection
or channel is repeated under the same identity while its deadline lasts.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.deadlines import Deadlines
from cluster_kit.errors import ConnectionLost, TopologyError, Unroutable
from cluster_kit_amqp.control import NOT_FOUND
from cluster_kit_amqp.delays import Wait, wait_for
from cluster_kit_amqp.link import (
    Channel,
    ChannelDown,
    Link,
    LinkDown,
    LinkError,
    Message,
    Nacked,
    Refused,
    Returned,
    Unencodable,
    Unsent,
)
from cluster_kit_amqp.outlet import PAUSE_AFTER_CHANNEL, Outlet, Progress
from cluster_kit_amqp.topology import DEAD, work_exchange
from cluster_kit_amqp.wire import to_message

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection import Connection
    from cluster_kit_amqp.declare import Declarer

log = logging.getLogger(__name__)

_LONGEST_EXPIRATION_MS = 2**32 - 1
_MOST_NACKS = 4  # of one task: a full queue is told after a second
_PAUSE_AFTER_NACK = 0.1  # seconds, times the number of them
_SLACK = 0.05  # seconds; a delay that began less than this ago is taken as it was given


@dataclass(slots=True)
class _Target:
    exchange: str
    key: str
    wait: Wait | None = None  # where it is delayed


class Publisher:
    """Publishes tasks and dead letters over one connection."""

    def __init__(self, connection: Connection, declarer: Declarer, context: AdapterContext) -> None:
        self._connection, self._declarer, self._context = connection, declarer, context
        self._outlet = Outlet(connection, context)
        self._deadlines = Deadlines()
        self._ladder = declarer.makes

    def close(self) -> None:
        """Let go of the timer."""
        self._deadlines.close()

    async def publish(
        self, envelope: Envelope, *, delay: float, timeout: float, bury: bool = False
    ) -> None:
        """Store an envelope, among the dead letters when `bury`. See the port."""
        progress = Progress(
            envelope.id, envelope.queue, len(envelope.body), self._context.clock.monotonic()
        )
        try:
            with self._deadlines.within(timeout):
                await self._until_stored(envelope, delay, progress, bury=bury)
        except TimeoutError:
            raise self._outlet.out_of_time(timeout, progress) from None
        except LinkDown as exc:  # of waiting for a link: the adapter is closed
            raise progress.unfinished(ConnectionLost(exc.reason)) from exc

    async def _until_stored(
        self, envelope: Envelope, delay: float, progress: Progress, *, bury: bool
    ) -> None:
        while True:
            link = self._connection.link
            if link is None or link.blocked is not None:
                link = await self._connection.writable()
            target = self._target(envelope, delay, progress, bury=bury)
            try:
                channel = self._ready_now(link, envelope, target)
                if channel is None:
                    channel = await self._ready_channel(link, envelope, target, progress)
                message = self._message(envelope, target, progress)
                try:
                    await channel.publish(target.exchange, target.key, message)
                except asyncio.CancelledError as exc:
                    progress.unknown = progress.unknown or not isinstance(exc, Unsent)
                    raise
            except (LinkError, TopologyError) as exc:
                await self._went_wrong(envelope, target, progress, exc)
            else:
                return

    def _target(
        self, envelope: Envelope, delay: float, progress: Progress, *, bury: bool
    ) -> _Target:
        """Return where to publish now: what is left of the delay shrinks while we try."""
        queue = envelope.queue
        if bury:
            return _Target(DEAD, queue.full)
        if delay > 0:
            passed = self._context.clock.monotonic() - progress.started
            left = delay if passed < _SLACK else delay - passed
            if left > 0:
                wait = wait_for(queue, left, ladder=self._ladder)
                return _Target(wait.exchange, wait.key, wait)
        return _Target(work_exchange(queue), queue.channel)

    def _message(self, envelope: Envelope, target: _Target, progress: Progress) -> Message:
        expires_at, expiration_ms = envelope.expires_at, None
        if expires_at is not None:
            expiration_ms = self._expiration(envelope, target, expires_at)
        return to_message(
            envelope,
            copy_id=progress.copy_id,
            app=self._context.app,
            expiration_ms=expiration_ms,
        )

    def _ready_now(self, link: Link, envelope: Envelope, target: _Target) -> Channel | None:
        """Return the channel if nothing must be looked at before it is used: the usual case."""
        if target.wait is not None or not self._declarer.is_settled(link, envelope.queue.full):
            return None
        return self._outlet.channel_of(link, target.exchange, len(envelope.body))

    async def _ready_channel(
        self, link: Link, envelope: Envelope, target: _Target, progress: Progress
    ) -> Channel:
        """Make sure of everything a publish needs. What fails in here was not sent."""
        try:
            await self._prepare(link, envelope, target, progress)
            return await self._outlet.open(link)
        except LinkError as exc:
            exc.sent = False
            raise

    async def _prepare(
        self, link: Link, envelope: Envelope, target: _Target, progress: Progress
    ) -> None:
        await self._outlet.admit(target.exchange, progress)
        await self._declarer.ensure_queue(link, envelope.queue)
        if target.wait is not None:
            wait = target.wait
            progress.trouble = f"what {wait.needs!r} needs is still being made"
            await self._declarer.ensure(link, wait.needs, wait.steps, wait.last)
            progress.trouble = ""

    def _expiration(self, envelope: Envelope, target: _Target, expires_at: float) -> int | None:
        """Return the time to live in the work queue, ms; never 0, which has another meaning.

        A waiting message must not have any: it would leave its wait queue early. One that lives
        longer than the broker can count is left to whoever takes it.
        """
        if envelope.death is not None or target.wait is not None:
            return None
        left = max(1, round((expires_at - self._context.clock.wall()) * 1000))
        return left if left <= _LONGEST_EXPIRATION_MS else None

    # --- what went wrong ---------------------------------------------------------------------

    async def _went_wrong(
        self,
        envelope: Envelope,
        target: _Target,
        progress: Progress,
        error: LinkError | TopologyError,
    ) -> None:
        """Make ready for another try, or raise what has become of the publish."""
        match error:
            case LinkDown():  # the next turn waits for another link
                progress.trouble = error.reason
                progress.unknown = progress.unknown or error.sent
            case ChannelDown():
                await self._channel_lost(envelope, target, progress, error)
            case Returned():
                self._returned(envelope, target, progress, error)
            case TopologyError():
                self._do_without_ladder(target, error)
            case Nacked() | Refused() | Unencodable():
                await self._not_taken(progress, error)
            case _:
                raise error

    async def _channel_lost(
        self, envelope: Envelope, target: _Target, progress: Progress, error: ChannelDown
    ) -> None:
        """Decide whether this publish is the one that ended the channel; if not, try again."""
        refusal = self._outlet.blame(error, target.exchange, progress)
        if error.code == NOT_FOUND:
            self._forget(envelope, target)
        if refusal is not None:
            raise progress.unfinished(refusal) from error
        await self._context.clock.sleep(PAUSE_AFTER_CHANNEL * progress.lost_channels)

    def _do_without_ladder(self, target: _Target, error: TopologyError) -> None:
        """A step of the ladder cannot be had, perhaps by this user: the chain serves as well."""
        if target.wait is None or target.wait.last is not None:
            raise error
        log.info("delays go along the chain from now on: %s", error)
        self._ladder = False

    async def _not_taken(self, progress: Progress, error: Nacked | Refused | Unencodable) -> None:
        """Give up, but not at once: a quorum queue without a leader yet answers as a full one."""
        progress.nacks, progress.trouble = progress.nacks + 1, error.reason
        if not isinstance(error, Nacked) or progress.nacks > _MOST_NACKS:
            raise progress.unfinished(progress.refused(error)) from error
        await self._context.clock.sleep(_PAUSE_AFTER_NACK * progress.nacks)

    def _returned(
        self, envelope: Envelope, target: _Target, progress: Progress, error: Returned
    ) -> None:
        if progress.returned:
            problem = Unroutable(f"no queue took message {envelope.id} for {envelope.queue}")
            raise progress.unfinished(problem) from error
        progress.returned, progress.trouble = True, error.reason
        self._forget(envelope, target)

    def _forget(self, envelope: Envelope, target: _Target) -> None:
        names = [envelope.queue.full]
        if target.wait is not None:
            names.append(target.wait.needs)
        self._declarer.forget(*names)
