"""Publishing: confirmed or an error that tells the truth.

One channel serves all publishes of a link; they overlap. A publish that meets a lost connection
or channel is repeated under the same identity while its deadline lasts.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.deadlines import Deadlines
from cluster_kit.errors import (
    ConnectionLost,
    PublishRefused,
    PublishUnconfirmed,
    TopologyError,
    TransportError,
    Unroutable,
)
from cluster_kit.names import new_id
from cluster_kit_amqp.declare import NOT_FOUND
from cluster_kit_amqp.delays import Wait, wait_for
from cluster_kit_amqp.link import (
    Channel,
    ChannelDown,
    Link,
    LinkDown,
    LinkError,
    Nacked,
    Refused,
    Returned,
    Unencodable,
)
from cluster_kit_amqp.topology import DEAD, work_exchange
from cluster_kit_amqp.wire import to_message

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection import Connection
    from cluster_kit_amqp.declare import Declarer

log = logging.getLogger(__name__)

_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (?P<limit>\d+)")
_LONGEST_EXPIRATION_MS = 2**32 - 1
_REFUSED_FOR = 5.0  # seconds; each refusal costs all other publishes their channel
_SLACK = 0.05  # seconds; a delay that began less than this ago is taken as it was given
_MOST_LOST_CHANNELS = 5
_PAUSE_AFTER_CHANNEL = 0.05  # seconds


@dataclass(slots=True)
class _Progress:
    """What has happened to one publish so far. `unknown`: a sent copy got no answer."""

    started: float
    copy_id: str = field(default_factory=new_id)
    unknown: bool = False
    returned: bool = False
    lost_channels: int = 0
    trouble: str = ""


@dataclass(slots=True)
class _Target:
    exchange: str
    key: str
    delayed: bool
    wait: Wait | None = None


class Publisher:
    """Publishes tasks and dead letters over one connection."""

    def __init__(self, connection: Connection, declarer: Declarer, context: AdapterContext) -> None:
        self._connection, self._declarer, self._context = connection, declarer, context
        self._channel: Channel | None = None
        self._channel_link: Link | None = None
        self._opening = asyncio.Lock()
        self._largest_body: int | None = None
        self._refusing: dict[str, tuple[float, str]] = {}
        self._deadlines = Deadlines()
        self._ladder = declarer.makes

    def close(self) -> None:
        """Let go of the timer."""
        self._deadlines.close()

    async def publish(
        self, envelope: Envelope, *, delay: float, timeout: float, bury: bool = False
    ) -> None:
        """Store an envelope, among the dead letters when `bury`. See the port."""
        progress = _Progress(started=self._context.clock.monotonic())
        try:
            with self._deadlines.within(timeout):
                await self._until_stored(envelope, delay, progress, bury=bury)
        except TimeoutError:
            raise self._out_of_time(envelope, timeout, progress) from None
        except LinkDown as exc:  # of waiting for a link: the adapter is closed
            raise _unfinished(envelope, progress, ConnectionLost(exc.reason)) from exc

    async def _until_stored(
        self, envelope: Envelope, delay: float, progress: _Progress, *, bury: bool
    ) -> None:
        while True:
            link = self._connection.link
            if link is None or link.blocked is not None:
                link = await self._connection.writable()
            target = self._target(envelope, delay, progress, bury=bury)
            try:
                await self._attempt(link, envelope, target, progress)
            except LinkDown as exc:  # the next turn waits for another link
                progress.trouble = exc.reason
                progress.unknown = progress.unknown or exc.sent
            except (ChannelDown, TopologyError) as exc:
                await self._set_back(envelope, target, progress, exc)
            except Returned as exc:
                self._returned(envelope, target, progress, exc)
            except (Nacked, Refused, Unencodable) as exc:
                raise _unfinished(envelope, progress, _refused(envelope, exc)) from exc
            else:
                return

    def _target(
        self, envelope: Envelope, delay: float, progress: _Progress, *, bury: bool
    ) -> _Target:
        """Return where to publish now: what is left of the delay shrinks while we try."""
        queue = envelope.queue
        if bury:
            return _Target(DEAD, queue.full, delayed=False)
        left = delay
        if delay > 0:
            passed = self._context.clock.monotonic() - progress.started
            left = delay if passed < _SLACK else delay - passed
        if left <= 0:
            return _Target(work_exchange(queue), queue.channel, delayed=False)
        wait = wait_for(queue, left, ladder=self._ladder)
        return _Target(wait.exchange, wait.key, delayed=True, wait=wait)

    async def _attempt(
        self, link: Link, envelope: Envelope, target: _Target, progress: _Progress
    ) -> None:
        channel = self._channel
        if channel is None or not self._is_ready(channel, link, envelope, target):
            try:
                channel = await self._ready_channel(link, envelope, target, progress)
            except LinkError as exc:
                exc.sent = False
                raise
        message = to_message(
            envelope,
            copy_id=progress.copy_id,
            app=self._context.app,
            expiration_ms=self._expiration(envelope, target),
        )
        try:
            await channel.publish(target.exchange, target.key, message)
        except asyncio.CancelledError:
            progress.unknown = True
            raise

    def _is_ready(self, channel: Channel, link: Link, envelope: Envelope, target: _Target) -> bool:
        """Whether nothing must be looked at before `channel` is used: the usual case."""
        return (
            self._channel_link is link
            and channel.open
            and target.wait is None
            and self._largest_body is None
            and target.exchange not in self._refusing
            and self._declarer.is_settled(link, envelope.queue.full)
        )

    async def _ready_channel(
        self, link: Link, envelope: Envelope, target: _Target, progress: _Progress
    ) -> Channel:
        """Make sure of everything a publish needs. What fails in here was not sent."""
        until, reason = self._refusing.get(target.exchange, (0.0, ""))
        if self._context.clock.monotonic() < until:
            await self._context.clock.sleep(_PAUSE_AFTER_CHANNEL)  # a caller that insists waits
            raise Refused(reason)
        self._refusing.pop(target.exchange, None)
        await self._declarer.ensure_queue(link, envelope.queue)
        if target.wait is not None:
            wait = target.wait
            progress.trouble = f"what {wait.needs!r} needs is still being made"
            await self._declarer.ensure(link, wait.needs, wait.steps, wait.last)
            progress.trouble = ""
        if self._largest_body is not None and len(envelope.body) > self._largest_body:
            raise self._too_large(envelope)
        async with self._opening:
            if self._channel is None or self._channel_link is not link or not self._channel.open:
                self._channel = await link.open_channel(confirms=True)
                self._channel_link = link
                self._channel.on_closed(partial(self._closed, self._channel))
            return self._channel

    def _closed(self, channel: Channel, _: str) -> None:
        """Let go of the channel, and with it of a link that may be lost."""
        if self._channel is channel:
            self._channel = self._channel_link = None

    def _expiration(self, envelope: Envelope, target: _Target) -> int | None:
        """Return the time to live in the work queue, ms; never 0, which has another meaning.

        A waiting message must not have any: it would leave its wait queue early. One that lives
        longer than the broker can count is left to whoever takes it.
        """
        if envelope.expires_at is None or envelope.death is not None or target.delayed:
            return None
        left = max(1, round((envelope.expires_at - self._context.clock.wall()) * 1000))
        return left if left <= _LONGEST_EXPIRATION_MS else None

    # --- what went wrong ---------------------------------------------------------------------

    async def _set_back(
        self,
        envelope: Envelope,
        target: _Target,
        progress: _Progress,
        error: ChannelDown | TopologyError,
    ) -> None:
        if isinstance(error, ChannelDown):
            await self._channel_lost(envelope, target, progress, error)
        else:
            self._do_without_ladder(target, error)

    async def _channel_lost(
        self, envelope: Envelope, target: _Target, progress: _Progress, error: ChannelDown
    ) -> None:
        """Decide whether this publish is the one that ended the channel; if not, try again."""
        progress.trouble = error.reason
        progress.lost_channels += 1
        if (match := _TOO_LARGE.search(error.reason)) is not None:
            self._largest_body = int(match["limit"])
            if len(envelope.body) > self._largest_body:
                raise _unfinished(envelope, progress, self._too_large(envelope)) from error
        elif error.code == NOT_FOUND:
            self._forget(envelope, target)
        refused = error.code not in {0, NOT_FOUND} and repr(target.exchange) in error.reason
        if refused:
            now = self._context.clock.monotonic()
            self._refusing[target.exchange] = (now + _REFUSED_FOR, error.reason)
        if refused or progress.lost_channels > _MOST_LOST_CHANNELS:
            raise _unfinished(envelope, progress, _refused(envelope, error)) from error
        progress.unknown = progress.unknown or error.sent
        await self._context.clock.sleep(_PAUSE_AFTER_CHANNEL * progress.lost_channels)

    def _do_without_ladder(self, target: _Target, error: TopologyError) -> None:
        """A step of the ladder cannot be had, perhaps by this user: the chain serves as well."""
        if target.wait is None or target.wait.last is not None:
            raise error
        log.info("delays go along the chain from now on: %s", error)
        self._ladder = False

    def _returned(
        self, envelope: Envelope, target: _Target, progress: _Progress, error: Returned
    ) -> None:
        if progress.returned:
            problem = Unroutable(f"no queue took message {envelope.id} for {envelope.queue}")
            raise _unfinished(envelope, progress, problem) from error
        progress.returned, progress.trouble = True, error.reason
        self._forget(envelope, target)

    def _forget(self, envelope: Envelope, target: _Target) -> None:
        names = [envelope.queue.full]
        if target.wait is not None:
            names.append(target.wait.needs)
        self._declarer.forget(*names)

    def _too_large(self, envelope: Envelope) -> PublishRefused:
        return PublishRefused(
            f"message {envelope.id} has {len(envelope.body)} bytes, "
            f"the broker takes at most {self._largest_body}"
        )

    def _out_of_time(
        self, envelope: Envelope, timeout: float, progress: _Progress
    ) -> TransportError:
        within = f"within {timeout:g} s"
        trouble = f" ({progress.trouble})" if progress.trouble else ""
        if progress.unknown:
            return PublishUnconfirmed(envelope.id, f"no confirm {within}{trouble}")
        link = self._connection.link
        if link is None:
            return ConnectionLost(f"no connection {within}{trouble}; nothing was sent")
        if link.blocked is not None:
            return PublishRefused(f"the broker blocks publishers: {link.blocked}; nothing was sent")
        return ConnectionLost(f"not stored {within}{trouble}; nothing was sent")


def _refused(envelope: Envelope, error: LinkError) -> PublishRefused:
    text = f"the broker refused message {envelope.id} for {envelope.queue}: {error.reason}"
    return PublishRefused(text)


def _unfinished(envelope: Envelope, progress: _Progress, problem: TransportError) -> TransportError:
    """Return `problem`, unless an earlier copy may be stored: then the outcome is unknown."""
    if progress.unknown:
        return PublishUnconfirmed(envelope.id, str(problem))
    return problem
