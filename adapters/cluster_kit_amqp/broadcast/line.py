"""What is published to one exchange, in the order of the calls, whatever happens to the link.

Messages are written one behind the other and their confirms overlap. When the link or the channel
goes, what is not confirmed goes first on the next, in its old order; whoever comes meanwhile
stands behind. What a queue did not take is repeated after a pause: it and those behind it on its
channel wait, the others pass. So it is with a channel the broker refuses to take anything on.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.errors import (
    ConnectionLost,
    PublishRefused,
    PublishUnconfirmed,
    TopologyError,
    TransportError,
)
from cluster_kit_amqp.backoff import Backoff
from cluster_kit_amqp.connection.publishing_channel import (
    PAUSE_AFTER_CHANNEL,
    Progress,
    PublishingChannel,
    State,
)
from cluster_kit_amqp.control.seam import NOT_FOUND
from cluster_kit_amqp.link import ChannelDown, LinkDown, LinkError, Nacked, Refused, Unencodable

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection.supervised import Connection
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.link import Channel, Message
    from cluster_kit_amqp.topology import Steps

MOST_MESSAGES = 1000
"""Messages of a line that may wait for their confirm."""

MOST_BYTES = 4 * 1024 * 1024
"""The same in bytes; a single message may have more."""

_LONGEST_PAUSE = 1.0  # seconds


class Means(NamedTuple):
    """What the lines of one adapter share."""

    connection: Connection
    declarer: Declarer
    outlet: PublishingChannel
    context: AdapterContext


@dataclass(slots=True, eq=False)
class PendingPublish:
    """One publish. `number` is its place in the line."""

    number: int
    key: str
    message: Message
    progress: Progress
    done: asyncio.Future[None]

    def __lt__(self, other: PendingPublish) -> bool:
        return self.number < other.number

    def fail(self, error: TransportError | TopologyError) -> None:
        """End it with an error, or with an unknown outcome where a copy may be stored."""
        if self.done.done():
            return
        if isinstance(error, PublishRefused):
            error.sent = self.progress.state is not State.WAITING
            self.progress.move(State.REFUSED if error.sent else State.WAITING)
        if isinstance(error, TransportError):
            self.done.set_exception(self.progress.unfinished(error))
        elif self.progress.unknown:
            self.done.set_exception(PublishUnconfirmed(self.progress.id, str(error)))
        else:
            self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class Hold:
    """What of one key waits, in any order, until it may be sent. `end` is that."""

    end: asyncio.Task[None]
    waiting: list[PendingPublish]


class Line:
    """The publishes to one exchange.

    Args:
        exchange: they go to.
        steps: what must be there on the broker before.
        means: shared with others.
    """

    def __init__(self, exchange: str, steps: Steps, means: Means) -> None:
        self._exchange, self._steps = exchange, steps
        self._connection, self._declarer = means.connection, means.declarer
        self._outlet, self._context = means.outlet, means.context
        self._waiting: list[PendingPublish] = []
        self._holds: dict[str, Hold] = {}
        self._last = 0
        self._messages = self._bytes = 0
        self._preparing: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, key: str, message: Message, progress: Progress) -> PendingPublish:
        """Let a message stand in the line."""
        self._last += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pending = PendingPublish(self._last, key, message, progress, done)
        heapq.heappush(self._waiting, pending)
        if self._closed:
            self._end_all("the adapter is closed")
        else:
            self._pump()
        return pending

    def close(self) -> None:
        """Send nothing more: what waits ends with an error."""
        self._closed = True
        if self._preparing is not None:
            self._preparing.cancel()
        self._end_all("the adapter is closed")

    # --- sending -----------------------------------------------------------------------------

    def _first(self) -> PendingPublish | None:
        """Return the first that may be sent, without those whose callers have given up."""
        while self._waiting:
            first = self._waiting[0]
            if self._outlet.refusal(self._exchange, first.key) is not None:
                self._hold(first.key, PAUSE_AFTER_CHANNEL)  # a caller that insists waits
            hold = self._holds.get(first.key)
            if hold is None and not first.done.done():
                return first
            heapq.heappop(self._waiting)
            if hold is not None:
                hold.waiting.append(first)
        return None

    def _pump(self) -> None:
        """Send what can be sent; see to it that the rest can be."""
        while (pending := self._first()) is not None and self._has_room(pending):
            channel = self._channel(pending)
            if channel is None:
                self._prepare_soon()
                return
            heapq.heappop(self._waiting)
            self._send(channel, pending)

    def _has_room(self, pending: PendingPublish) -> bool:
        if not self._messages:
            return True
        room = self._bytes + pending.progress.size <= MOST_BYTES
        return room and self._messages < MOST_MESSAGES

    def _channel(self, pending: PendingPublish) -> Channel | None:
        """Return the channel, when nothing is left to be done before it is used."""
        link = self._connection.link
        if link is None or link.blocked is not None:
            return None
        if not self._declarer.is_settled(link, self._exchange):
            return None
        return self._outlet.channel_of(link, self._exchange, pending.key, pending.progress.size)

    def _send(self, channel: Channel, pending: PendingPublish) -> None:
        try:
            answer = channel.send(self._exchange, pending.key, pending.message)
        except Unencodable as exc:
            pending.fail(pending.progress.refused(exc))
            return
        pending.progress.move(State.SENT)
        self._messages += 1
        self._bytes += pending.progress.size
        answer.add_done_callback(partial(self._answered, pending))

    def _answered(self, pending: PendingPublish, answer: asyncio.Future[None]) -> None:
        self._messages -= 1
        self._bytes -= pending.progress.size
        error = answer.exception()
        if error is not None:
            self._failed(pending, error)
        else:
            pending.progress.move(State.CONFIRMED)
            if not pending.done.done():
                pending.done.set_result(None)
        if not self._closed:
            self._pump()

    def _failed(self, pending: PendingPublish, error: BaseException) -> None:
        progress = pending.progress
        if isinstance(error, LinkDown):
            progress.trouble = error.reason
            progress.move(State.UNKNOWN)
        elif isinstance(error, ChannelDown):
            if error.code == NOT_FOUND:
                self._declarer.forget(self._exchange)
            refusal = self._outlet.blame(error, self._exchange, pending.key, progress)
            if refusal is not None:
                pending.fail(refusal)
        elif isinstance(error, Nacked):
            self._nacked(pending, error)
        if pending.done.done():
            return
        if self._closed:
            pending.fail(ConnectionLost("the adapter is closed"))
        else:
            heapq.heappush(self._waiting, pending)

    def _nacked(self, pending: PendingPublish, error: Nacked) -> None:
        """One of the queues did not take it; others may have it.

        Most often a subscriber went away with its queue. That is no fault of the publisher's, so
        it goes on until its deadline.
        """
        progress, key = pending.progress, pending.key
        progress.move(State.UNKNOWN)
        progress.trouble = error.reason
        if not (self._closed or pending.done.done()):
            self._hold(key, min(PAUSE_AFTER_CHANNEL * 2.0**progress.nacks, _LONGEST_PAUSE))
        progress.nacks += 1

    def _hold(self, key: str, pause: float) -> None:
        """Let what is published with `key` wait, unless it does."""
        if key not in self._holds:
            name = f"amqp broadcasts {self._exchange} {key}"
            self._holds[key] = Hold(
                self._context.tasks.spawn(self._let_go(key, pause), name=name), []
            )

    async def _let_go(self, key: str, pause: float) -> None:
        """End a pause, and with it what the broker refuses for now."""
        await self._context.clock.sleep(pause)
        reason = self._outlet.refusal(self._exchange, key)
        for pending in self._holds.pop(key).waiting:
            if reason is None:
                heapq.heappush(self._waiting, pending)
            else:
                pending.fail(pending.progress.refused(Refused(reason)))
        self._pump()

    # --- preparing ---------------------------------------------------------------------------

    def _prepare_soon(self) -> None:
        if self._preparing is None:
            name = f"amqp broadcasts {self._exchange}"
            self._preparing = self._context.tasks.spawn(self._prepare(), name=name)

    async def _prepare(self) -> None:
        """Make ready what the first in the line needs, until it can be sent."""
        backoff = Backoff(self._context)
        try:
            while (pending := self._first()) is not None and self._channel(pending) is None:
                try:
                    await self._make_ready(pending)
                except PublishRefused as exc:
                    pending.fail(exc)
                except TopologyError as exc:
                    for unsent in self._unsent():
                        unsent.fail(exc)
                except LinkError as exc:
                    self._note(exc.reason)
                    await self._context.clock.sleep(backoff.next())
        finally:
            self._preparing = None
        self._pump()

    async def _make_ready(self, pending: PendingPublish) -> None:
        await self._context.clock.sleep(PAUSE_AFTER_CHANNEL * pending.progress.lost_channels)
        link = await self._connection.writable()
        self._outlet.check_size(pending.progress)
        await self._declarer.ensure(link, self._exchange, self._steps)
        await self._outlet.open(link)

    def _unsent(self) -> list[PendingPublish]:
        return [*self._waiting, *(p for hold in self._holds.values() for p in hold.waiting)]

    def _note(self, trouble: str) -> None:
        for unsent in self._unsent():
            unsent.progress.trouble = trouble

    def _end_all(self, reason: str) -> None:
        unsent = self._unsent()
        for hold in self._holds.values():
            hold.end.cancel()
        self._waiting, self._holds = [], {}
        for pending in unsent:
            pending.fail(ConnectionLost(reason))
