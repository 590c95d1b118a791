"""Consuming: one channel per consumer, taken care of by one task of its own.

The caller only says what it wants (take, pause, end). The task makes it so, again after every
loss, and is the only one that talks on the channel, except for settling. So no caller that is
cancelled leaves the channel half way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from cluster_kit.errors import ConnectError, ConnectionLost, TopologyError, TransportError
from cluster_kit.loops import set_within
from cluster_kit_amqp.backoff import LONGEST_DELAY, Backoff
from cluster_kit_amqp.connection.patience import Patience
from cluster_kit_amqp.control.seam import ACCESS_REFUSED, LOCKED, NOT_FOUND, PRECONDITION_FAILED
from cluster_kit_amqp.link import ChannelDown, Link, LinkDown, LinkError
from cluster_kit_amqp.tasks.intake import Intake

if TYPE_CHECKING:
    from cluster_kit.names import QueueName
    from cluster_kit.ports import AdapterContext, Received
    from cluster_kit_amqp.connection.supervised import Connection
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.health import Problems

log = logging.getLogger(__name__)

Wish = Literal["take", "pause", "end"]

CALL_TIMEOUT = 10.0  # seconds for what the broker is asked at once
_LAST_CALL_TIMEOUT = 2.0  # seconds for the same, once nobody waits for more than the end
WATCH_INTERVAL = 30.0  # seconds between looks whether the broker still knows of the consumer
_LONGEST_CONFLICT_DELAY = 60.0  # seconds between attempts on a queue with other arguments
_FEWEST_UNSEEN = 2  # looks in a row that must find no consumer
_NOT_OURS = frozenset({ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION_FAILED})


class ConsumerContext(NamedTuple):
    """What the consumers of one adapter share."""

    connection: Connection
    declarer: Declarer
    context: AdapterContext
    problems: Problems


class AmqpConsumer:
    """A consumer that heals itself. Implements `cluster_kit.ports.Consumer`."""

    def __init__(
        self,
        queue: QueueName,
        shared: ConsumerContext,
        *,
        prefetch: int,
        on_delivery: Callable[[Received], None],
        paused: bool,
    ) -> None:
        self._queue, self._prefetch, self._on_delivery = queue, prefetch, on_delivery
        self._connection, self._declarer = shared.connection, shared.declarer
        self._context, self._problems = shared.context, shared.problems
        self._wish: Wish = "pause" if paused else "take"
        self._intake: Intake | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._passed = asyncio.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._unseen = 0
        self._reported = False
        self._patience = Patience(CALL_TIMEOUT, _LAST_CALL_TIMEOUT)

    # --- for the service ---------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take, or raise what keeps it from that. See `EventQueueAdapter.consume`."""
        link = self._connection.link
        if link is None:
            raise ConnectionLost(f"no connection to consume {self._queue} on")
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._attach(link)
        except TimeoutError:
            await self._drop("the broker did not answer")
            raise ConnectionLost("no answer in time") from None
        except LinkError as exc:
            await self._drop(exc.reason)
            raise self._not_consumed(exc) from exc
        except BaseException:
            await self._drop("given up")
            raise
        self._unsubscribe = self._connection.on_change(self._wake.set)
        self._task = self._context.tasks.spawn(self._run(), name=f"amqp consumer {self._queue}")

    def _not_consumed(self, error: LinkError) -> TransportError:
        if error.by_limit:
            reason = f"{self._queue} is not consumed: {error.reason}"
            return ConnectError(self._connection.url, reason)
        if isinstance(error, LinkDown):
            return ConnectionLost(error.reason)
        return TransportError(error.reason)

    async def pause(self) -> None:
        """Take nothing more until `resume`."""
        await self._want("pause")

    async def resume(self, prefetch: int | None = None) -> None:
        """Take again, at most `prefetch` at a time; returns at once, the consumer follows."""
        self._prefetch = prefetch or self._prefetch
        if self._wish == "pause":
            self._wish = "take"
        self._wake.set()

    async def close(self) -> None:
        """Stop for good; a broker that does not answer is not waited for long."""
        self._patience.end_soon()
        await self._want("end")
        if self._task is not None:
            await asyncio.wait({self._task})

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""
        return self._task is not None and self._task.done()

    async def _want(self, wish: Wish) -> None:
        """Say what is wanted and wait until the task has gone by that."""
        if self._wish == "end" or self._task is None:
            return
        self._wish = wish
        self._wake.set()
        while self._wish == wish and not self._task.done() and self._is_taking:
            await self._passed.wait()

    @property
    def _is_taking(self) -> bool:
        intake = self._intake
        return intake is not None and intake.lost is None and intake.taking

    # --- the task ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._follow_the_wish()
        finally:
            self._unsubscribe()
            intake, self._intake = self._intake, None
            if intake is not None:
                await intake.close()
            self._problems.clear(self._part)
            self._end_pass()

    async def _follow_the_wish(self) -> None:
        quick = Backoff(self._context, LONGEST_DELAY)
        slow = Backoff(self._context, _LONGEST_CONFLICT_DELAY)
        quiet = False
        while self._wish != "end":
            self._wake.clear()
            pause = WATCH_INTERVAL
            try:
                await self._step()
                if quiet and self._is_taking:
                    await self._look_for_us()
                    quick.reset()
                    slow.reset()
            except TopologyError as exc:
                pause = await self._failed(str(exc), slow)
            except (LinkError, TimeoutError) as exc:
                pause = await self._failed(str(exc) or "the broker did not answer", quick)
            except Exception as exc:
                log.exception("consumer of %s failed, trying again", self._queue)
                pause = await self._failed(repr(exc), slow)
            self._end_pass()
            quiet = not await set_within(self._wake, pause) and pause == WATCH_INTERVAL

    def _end_pass(self) -> None:
        self._passed.set()
        self._passed = asyncio.Event()

    async def _step(self) -> None:
        """Do what is missing between what is and what is wished."""
        intake = self._intake
        if intake is not None and intake.lost is not None:
            raise LinkDown(intake.lost)
        if intake is None and self._wish == "pause":
            self._problems.clear(self._part)  # nothing is missing
        async with self._patience.limited():
            if self._wish == "pause" and intake is not None:
                await intake.stop_taking()
            elif self._wish == "take" and intake is not None:
                await self._take(intake)
            elif self._wish == "take" and (link := self._connection.link) is not None:
                await self._attach(link)

    async def _attach(self, link: Link) -> None:
        """Open a channel of its own, and consume on it unless paused."""
        await self._declarer.ensure_queue(link, self._queue)
        self._reported = False
        self._intake = await Intake.open(
            link,
            self._queue,
            on_delivery=self._on_delivery,
            on_change=self._wake.set,
        )
        try:
            if self._wish == "take":
                await self._take(self._intake)
        except ChannelDown as exc:
            if exc.code in _NOT_OURS:
                raise TopologyError(f"queue {self._queue.full!r}", exc.reason) from exc
            raise
        self._problems.clear(self._part)

    async def _take(self, intake: Intake) -> None:
        await intake.take(self._prefetch)
        if not self._reported:
            self._reported, self._unseen = True, 0
            self._context.emit("consumer.started", adapter="amqp", queue=self._queue.full)

    async def _failed(self, reason: str, backoff: Backoff) -> float:
        """Note why the consumer is not taking; return the seconds until the next attempt."""
        if self._wish == "take":
            detail = f"consumer of {self._queue} is not taking: {reason}"
            self._problems.report(self._part, "degraded", detail)
        await self._drop(reason)
        return backoff.next()

    async def _drop(self, reason: str) -> None:
        """Give up the intake; its deliveries come again."""
        intake, self._intake = self._intake, None
        self._declarer.forget(self._queue.full)
        if intake is None:
            return
        intake.lose(reason, tell=False)
        if self._reported:
            self._context.emit(
                "consumer.lost", adapter="amqp", queue=self._queue.full, reason=reason
            )
        await intake.close()

    async def _look_for_us(self) -> None:
        """Find out whether the broker has forgotten the consumer without telling.

        Raises:
            LinkError: it has, or the queue is gone.
        """
        link = self._connection.link
        if link is None:
            return
        try:
            async with self._patience.limited(), link.channel() as channel:
                counts = await channel.check_queue(self._queue.full)
        except TimeoutError:
            return  # slow is not gone
        except ChannelDown as exc:
            if exc.code == NOT_FOUND:
                raise
            return  # it could not be asked, for want of a channel perhaps
        self._unseen = 0 if counts.consumers else self._unseen + 1
        if self._unseen >= _FEWEST_UNSEEN:
            raise LinkDown("the broker knows of no consumer")

    @property
    def _part(self) -> str:
        return f"consumer {self._queue.full} {id(self)}"
