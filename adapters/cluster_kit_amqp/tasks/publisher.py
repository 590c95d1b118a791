"""Publishing: confirmed or an error that tells the truth.

One channel serves all publishes of a link; they overlap. A publish that meets a lost connection
or channel is repeated under the same identity while its deadline lasts.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster_kit.deadlines import Deadlines, Within
from cluster_kit.errors import (
    ConnectionLost,
    EncodeError,
    PublishRefused,
    PublishUnconfirmed,
    TopologyError,
    Unroutable,
)
from cluster_kit_amqp.connection.publishing_channel import (
    PAUSE_AFTER_CHANNEL,
    Progress,
    PublishingChannel,
    State,
)
from cluster_kit_amqp.control.seam import NOT_FOUND
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
from cluster_kit_amqp.tasks.delays import Wait, wait_for
from cluster_kit_amqp.tasks.fullness import Fullness
from cluster_kit_amqp.tasks.wire import to_message
from cluster_kit_amqp.topology import BACK, DEAD

if TYPE_CHECKING:
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection.supervised import Connection
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.health import Problems
    from cluster_kit_amqp.tasks.upkeep import Upkeep

log = logging.getLogger(__name__)

_LONGEST_EXPIRATION_MS = 2**32 - 1
_MOST_NACKS = 4  # of one task: a full queue is told after a second
_PAUSE_AFTER_NACK = 0.1  # seconds, times the number of them
_LONGEST_PAUSE = 1.0  # seconds
_REMEMBERED = 300.0  # seconds a publish that failed shows in health
_SLACK = 0.05  # seconds; a delay that began less than this ago is taken as it was given


@dataclass(slots=True)
class _Target:
    exchange: str
    key: str
    queue: str  # that takes the message
    wait: Wait | None = None  # where it is delayed


@lru_cache(maxsize=1024)
def _work_queue(queue: QueueName) -> _Target:
    """Return where no queue but this one is bound, unlike the exchange that is open to everybody.

    One of somebody else would answer for ours: its refusal as if nothing were stored, its consent
    as if the task were.
    """
    return _Target(BACK, queue.full, queue.full)


def _dead_queue(queue: QueueName) -> _Target:
    return _Target(DEAD, queue.full, queue.dead)


class Publisher:
    """Publishes tasks and dead letters over one connection.

    Attributes:
        used: the queues something was stored for.
    """

    def __init__(
        self,
        connection: Connection,
        declarer: Declarer,
        context: AdapterContext,
        problems: Problems,
        upkeep: Upkeep,
    ) -> None:
        self._upkeep = upkeep
        self._connection, self._declarer, self._context = connection, declarer, context
        self._problems, self._app = problems, context.app
        self._outlet = PublishingChannel(connection, context)
        self._fullness = Fullness(connection, context.clock)
        self._deadlines = Deadlines()
        self._ladder = declarer.makes
        self.used: set[QueueName] = set()
        self._latest: QueueName | None = None

    def close(self) -> None:
        """Let go of the timer."""
        self._deadlines.close()

    async def publish(
        self, envelope: Envelope, delay: float, timeout: float, *, bury: bool = False
    ) -> None:
        """Store an envelope, among the dead letters when `bury`. See the port."""
        queue, now = envelope.queue, self._context.clock.monotonic()
        progress = Progress(envelope.id, queue, len(envelope.body), now)
        try:
            with Within(self._deadlines, timeout):
                await self._until_stored(envelope, delay, progress, bury=bury)
        except TimeoutError:
            raise self._outlet.out_of_time(timeout, progress) from None
        except LinkDown as exc:  # of waiting for a link: the adapter is closed
            raise progress.unfinished(ConnectionLost(exc.reason)) from exc
        except TopologyError as exc:
            self._note_trouble(queue, exc)
            if progress.unknown:
                raise PublishUnconfirmed(envelope.id, str(exc)) from exc
            raise
        except PublishRefused as exc:  # of an earlier answer: it is too large
            raise progress.unfinished(exc) from exc.__cause__
        if queue is not self._latest or self._problems.known:
            self._note_stored(queue)

    async def _until_stored(
        self, envelope: Envelope, delay: float, progress: Progress, *, bury: bool
    ) -> None:
        queue, elsewhere = envelope.queue, delay > 0 or bury
        while True:
            link = self._connection.writable_now or await self._connection.writable()
            target = _work_queue(queue)
            if elsewhere:
                target = _dead_queue(queue) if bury else self._target(queue, delay, progress)
            try:
                channel = self._ready_now(link, queue, target, progress)
                if channel is None:
                    channel = await self._ready_channel(link, queue, target, progress)
                    target = self._still(queue, target, delay, progress)
                message = self._message(envelope, target, progress)
                try:
                    await channel.publish(target.exchange, target.key, message)
                except asyncio.CancelledError as exc:
                    if not isinstance(exc, Unsent):
                        progress.move(State.UNKNOWN)
                    raise
            except (LinkError, TopologyError) as exc:
                await self._went_wrong(queue, target, progress, exc)
            else:
                return

    def _note_trouble(self, queue: QueueName, error: TopologyError) -> None:
        """Show it in health for a while, or until a task is stored."""
        part = _part(queue)
        self._problems.report(part, "degraded", f"{part} fails: {error}", lasts=_REMEMBERED)

    def _note_stored(self, queue: QueueName) -> None:
        self._problems.clear(_part(queue))
        self.used.add(queue)
        self._latest = queue

    def _target(
        self, queue: QueueName, delay: float, progress: Progress, *, ladder: bool = True
    ) -> _Target:
        """Return where to publish now: what is left of the delay shrinks while we try."""
        passed = self._context.clock.monotonic() - progress.started
        left = delay if passed < _SLACK else delay - passed
        if left <= 0:
            return _work_queue(queue)
        wait = wait_for(self._app, queue, left, ladder=ladder and self._ladder)
        return _Target(wait.exchange, wait.key, wait.exchange, wait)  # its queue has its name

    def _still(self, queue: QueueName, was: _Target, delay: float, progress: Progress) -> _Target:
        """Return where to publish now that all is ready; making the chain took a while."""
        chained = was.wait is not None and was.wait.chained
        return self._target(queue, delay, progress, ladder=False) if chained else was

    def _message(self, envelope: Envelope, target: _Target, progress: Progress) -> Message:
        expires_at, expiration_ms = envelope.expires_at, None
        if expires_at is not None:
            expiration_ms = self._expiration(envelope, expires_at, target)
        return to_message(envelope, progress.copy_id, self._app, expiration_ms)

    def _ready_now(
        self, link: Link, queue: QueueName, target: _Target, progress: Progress
    ) -> Channel | None:
        """Return the channel if nothing must be looked at before it is used: the usual case."""
        if target.wait is not None or not self._declarer.is_settled(link, queue.full):
            return None
        return self._outlet.channel_of(link, target.exchange, target.key, progress.size)

    async def _ready_channel(
        self, link: Link, queue: QueueName, target: _Target, progress: Progress
    ) -> Channel:
        """Make sure of everything a publish needs. What fails in here was not sent."""
        try:
            await self._prepare(link, queue, target, progress)
            return await self._outlet.open(link)
        except LinkError as exc:
            exc.sent = False
            raise

    async def _prepare(
        self, link: Link, queue: QueueName, target: _Target, progress: Progress
    ) -> None:
        await self._outlet.admit(target.exchange, target.key, progress)
        await self._declarer.ensure_queue(link, queue)
        if target.wait is not None:
            for section in target.wait.needs:
                progress.trouble = f"what {section.name!r} needs is still being made"
                await self._declarer.ensure(link, *section)
            progress.trouble = ""
            self._upkeep.use(queue, target.wait)

    def _expiration(self, envelope: Envelope, expires_at: float, target: _Target) -> int | None:
        """Return the time to live in the work queue, ms; never 0, which has another meaning.

        A waiting message must not have any: it would leave its wait queue early. One that lives
        longer than the broker can count is left to whoever takes it.
        """
        if envelope.death is not None or target.wait is not None:
            return None
        left = max(1, round((expires_at - self._context.clock.wall()) * 1000))
        return left if left <= _LONGEST_EXPIRATION_MS else None

    async def _went_wrong(
        self,
        queue: QueueName,
        target: _Target,
        progress: Progress,
        error: LinkError | TopologyError,
    ) -> None:
        """Make ready for another try, or raise what has become of the publish."""
        match error:
            case LinkDown():  # the next turn waits for another link
                progress.trouble = error.reason
                if error.sent:
                    progress.move(State.UNKNOWN)
            case ChannelDown():
                await self._channel_lost(queue, target, progress, error)
            case Returned():
                self._returned(queue, target, progress, error)
            case TopologyError():
                self._do_without_ladder(target, error)
            case Nacked() | Refused() | Unencodable():
                await self._not_taken(target, progress, error)
            case _:
                raise error

    async def _channel_lost(
        self, queue: QueueName, target: _Target, progress: Progress, error: ChannelDown
    ) -> None:
        """Decide whether this publish is the one that ended the channel; if not, try again."""
        refusal = self._outlet.blame(error, target.exchange, target.key, progress)
        if error.code == NOT_FOUND:
            self._forget(queue, target)
        if refusal is not None:
            raise progress.unfinished(refusal) from error
        await self._context.clock.sleep(PAUSE_AFTER_CHANNEL * progress.lost_channels)

    def _do_without_ladder(self, target: _Target, error: TopologyError) -> None:
        """A step of the ladder cannot be had, perhaps by this user: the chain serves as well."""
        if target.wait is None or target.wait.chained:
            raise error
        log.info("delays go along the chain from now on: %s", error)
        self._ladder = False

    async def _not_taken(
        self, target: _Target, progress: Progress, error: Nacked | Refused | Unencodable
    ) -> None:
        """Give up, but not at once on a queue that has no leader for now: it answers as a full one.

        A node that went away leads no more after some seconds, and until then takes nothing.
        """
        progress.trouble = error.reason
        if isinstance(error, Unencodable) and not progress.unknown:
            raise EncodeError(f"message {progress.id} cannot travel: {error.reason}") from error
        if not isinstance(error, Nacked):
            raise progress.unfinished(progress.refused(error)) from error
        progress.nacks += 1
        if progress.nacks > _MOST_NACKS:
            if await self._fullness.is_full(target.queue):
                raise progress.unfinished(progress.refused(error)) from error
            await self._outlet.renew()
        await self._context.clock.sleep(min(_PAUSE_AFTER_NACK * progress.nacks, _LONGEST_PAUSE))

    def _returned(
        self, queue: QueueName, target: _Target, progress: Progress, error: Returned
    ) -> None:
        if progress.returned:
            problem = Unroutable(f"no queue took message {progress.id} for {queue}")
            raise progress.unfinished(problem) from error
        progress.returned, progress.trouble = True, error.reason
        self._forget(queue, target)

    def _forget(self, queue: QueueName, target: _Target) -> None:
        needs = () if target.wait is None else target.wait.needs
        self._declarer.forget(queue.full, *(section.name for section in needs))
        self._upkeep.doubt()


def _part(queue: QueueName) -> str:
    return f"publishing to {queue.full}"
