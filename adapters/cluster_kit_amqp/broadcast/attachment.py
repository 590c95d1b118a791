"""Receiving: a source, its bindings and its consumer, taken care of by one task of its own.

Callers only say what they want. The task makes it so, again after every loss, and is the only one
that asks the broker; so no caller that is cancelled leaves anything half way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.errors import TopologyError
from cluster_kit_amqp.backoff import LONGEST_DELAY, Backoff
from cluster_kit_amqp.broadcast.intake import Intake
from cluster_kit_amqp.broadcast.sharing import LATE, until_alone
from cluster_kit_amqp.broadcast.source import refuse
from cluster_kit_amqp.broadcast.wishes import Debt, Wishes
from cluster_kit_amqp.connection.patience import Patience, is_set_within
from cluster_kit_amqp.link import ChannelDown, Link, LinkDown, LinkError

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit_amqp.broadcast.context import AttachmentContext
    from cluster_kit_amqp.broadcast.source import Refusals, Source
    from cluster_kit_amqp.link import Incoming

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT = 10.0  # seconds for what the broker is asked at once
_TOGETHER = 100  # bindings the broker is asked for at once
CLOSE_TIMEOUT = 2.0  # seconds
_STEADY = 30.0  # seconds without a change after which delays start over and bindings are renewed
_LONGEST_REFUSAL_DELAY = 60.0  # seconds between attempts at what the broker refuses

T = TypeVar("T")


class Attachment:
    """Keeps one source attached, with the bindings that are wished for."""

    def __init__(self, label: str, source: Source, around: AttachmentContext) -> None:
        self._label, self._source, self._around = label, source, around
        self._connection, self._context = around.connection, around.context
        self._wishes = Wishes()
        self._intake: Intake | None = None
        self._link: Link | None = None
        self._since = self._context.clock.wall()
        self._begun: float | None = None  # to let messages of this intake through
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._patience = Patience(_ANSWER_TIMEOUT, CLOSE_TIMEOUT)
        self._unsubscribe: Callable[[], None] = lambda: None

    # --- for the adapter ---------------------------------------------------------------------

    async def bind(self, binding: Binding) -> None:
        """Receive a binding; see the port."""
        wishes = self._wishes
        wishes.wanted.add(binding)
        if binding in wishes.live or self._closing:
            return
        self._start()
        if self._connection.link is None:
            wishes.owe([binding], self._late())
            self._report("the connection is lost")
            return
        asked = wishes.ask(binding)
        self._wake.set()
        try:
            await asyncio.shield(asked)
        except asyncio.CancelledError:
            wishes.stop_asking(binding)
            await self.unbind(binding)
            raise

    async def unbind(self, binding: Binding) -> None:
        """Receive it no more; returns at once, the broker follows."""
        self._wishes.remove(binding)
        self._wake.set()

    def live_since(self, binding: Binding) -> float | None:
        """Return since when a binding is received, seconds since 1970; None while it is not."""
        return self._begun if self._works and binding in self._wishes.live else None

    async def close(self) -> None:
        """Stop for good, and remove what is this instance's own."""
        self._closing = True
        self._patience.end_soon()
        if self._intake is not None:
            self._intake.lose("closed by this side", tell=False)
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    def _start(self) -> None:
        if self._task is None:
            self._unsubscribe = self._connection.on_change(self._wake.set)
            name = f"amqp broadcasts {self._label}"
            self._task = self._context.tasks.spawn(self._run(), name=name)

    def _late(self) -> Debt:
        """Return the gap of what was subscribed when it could not be received."""
        return Debt(self._context.clock.wall(), "subscribed while the connection was lost")

    # --- the task ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._follow()
        except (Exception, asyncio.CancelledError):  # where the loop is gone, nothing can be left
            await self._end()
            raise
        await self._end()

    async def _end(self) -> None:
        self._unsubscribe()
        self._wishes.put_off(self._late())
        await self._leave()
        self._around.problems.clear(self._part)

    async def _follow(self) -> None:
        quick = Backoff(self._context, LONGEST_DELAY)
        slow = Backoff(self._context, _LONGEST_REFUSAL_DELAY)
        while not self._closing:
            self._wake.clear()
            try:
                pause = await self._keep_up(slow)
            except TopologyError as exc:
                self._wishes.refuse_all(exc)
                if not self._wishes.wanted:
                    self._wake.set()  # nothing is missing any more
                pause = self._failed(str(exc), slow)
            except (LinkError, TimeoutError) as exc:
                pause = self._failed(str(exc) or "the broker did not answer", quick)
            except Exception as exc:
                log.exception("broadcasts (%s) failed, trying again", self._label)
                pause = self._failed(repr(exc), slow)
            if not await is_set_within(self._wake, pause) and pause == _STEADY:
                quick.reset()
                slow.reset()
                # Whoever deletes an exchange takes its bindings, and publishers make it anew
                # without them. What was missed by then, the numbers of later messages tell.
                self._source.bound.clear()

    async def _keep_up(self, slow: Backoff) -> float:
        """Do what is missing; return the seconds until that is to be looked for again."""
        refused = await self._pass()
        if refused:
            self._report(str(refused[0]))
        if self._works and self._source.shared and self._link is not None:
            await until_alone(self._source, self._link, self._wake, self._patience)
        return slow.next() if refused else _STEADY

    async def _pass(self) -> list[TopologyError]:
        """Do what is missing between what is and what is wished.

        Return why the broker will not have what is wished nevertheless.
        """
        link = self._connection.link
        await self._drop_lost(link)
        if link is None or self._closing:
            self._wishes.put_off(self._late())
        elif self._wishes.wanted:
            return await self._make_live(link)
        else:
            await self._leave()
            if not self._wishes.wanted:  # or somebody came meanwhile, and the next pass is theirs
                self._wishes.put_off(self._late())
                self._around.problems.clear(self._part)
        return []

    async def _make_live(self, link: Link) -> list[TopologyError]:
        fresh = self._intake is None
        since = self._since if fresh else self._context.clock.wall() - _STEADY
        if fresh:
            missing = await self._asked(self._source.open(link))
            if missing is not None:
                self._wishes.owe(self._wishes.live, Debt(since, missing))
        refused = await self._adjust(link)
        if fresh and self._wishes.wanted and not self._closing:
            await self._asked(self._attach(link))
        for binding in self._wishes.live & refused.keys():
            self._wishes.owe([binding], Debt(since, str(refused[binding])))
        return self._settle(refused)

    async def _adjust(self, link: Link) -> Refusals:
        """Bring the bindings at the broker in line; return what it refused."""
        refused: dict[Binding, TopologyError] = {}
        # What is new comes first: what both bring must not cease in between.
        for some in self._portions(self._wishes.wanted - self._source.bound):
            refused.update(await self._asked(self._source.bind(link, some)))
        for some in self._portions(self._source.held - self._wishes.wanted):
            await self._asked(self._source.unbind(link, some))
        return refused

    def _portions(self, bindings: set[Binding]) -> Iterator[list[Binding]]:
        """Yield what the broker is asked for at once, and nothing more once this closes."""
        ordered = sorted(bindings, key=str)
        for start in range(0, len(ordered), _TOGETHER):
            if not self._closing:
                yield ordered[start : start + _TOGETHER]

    async def _asked(self, answer: Awaitable[T]) -> T:
        """Wait for an answer; `TimeoutError` where it does not come."""
        async with self._patience.limited():
            return await answer

    async def _attach(self, link: Link) -> None:
        """Consume; what comes is held back until gaps are told."""
        channel = await link.open_channel()
        self._intake, self._link = Intake(channel, self._deliver, self._lost), link
        self._begun = None
        what = self._source.consumption()
        try:
            await self._intake.consume(what.queue, what.prefetch, what.arguments)
        except BaseException as exc:
            self._intake.lose("it could not consume", tell=False)
            if isinstance(exc, ChannelDown):
                refuse(what.queue, exc)
            raise
        self._context.emit("consumer.started", adapter="amqp", queue=what.queue)

    def _settle(self, refused: Refusals) -> list[TopologyError]:
        """All that could be made is live: tell it, and let messages through.

        Return why the rest of what is wished is not.
        """
        intake = self._intake
        if intake is None or intake.lost is not None:
            return []
        for debt, bindings in self._wishes.settle(self._source.bound).items():
            self._around.tell_gap(bindings, debt.since, debt.reason)
        self._wishes.refuse(refused.items())
        intake.release()
        left = [error for binding, error in refused.items() if binding in self._wishes.wanted]
        if self._source.shared:
            detail = f"broadcasts ({self._label}) may be late: {LATE}"
            self._around.problems.report(self._part, "degraded", detail)
            return left
        self._begun = self._begun or self._around.problems.later()
        if not left:
            self._around.problems.clear(self._part)
        return left

    def _deliver(self, incoming: Incoming) -> None:
        missing = self._source.took(incoming)
        if missing is not None:
            self._around.tell_gap(self._wishes.live, self._since, missing)
        self._around.hand_over(incoming)

    # --- losses ------------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        """The channel is gone. Called where that is found out."""
        silence = 0.0 if self._link is None else self._link.silence
        self._since = self._context.clock.wall() - silence
        self._report(reason)
        self._wake.set()

    def _failed(self, reason: str, backoff: Backoff) -> float:
        """Note why not all is as wished; return the seconds until the next attempt."""
        self._wishes.put_off(self._late())
        self._report(reason)
        return backoff.next()

    async def _drop_lost(self, link: Link | None) -> None:
        """Give up an intake that was lost.

        Raises:
            LinkDown: its link is still there: what ends a channel may end the next one too.
        """
        intake = self._intake
        if intake is None or intake.lost is None:
            return
        self._intake = None
        queue = self._source.name
        self._context.emit("consumer.lost", adapter="amqp", queue=queue, reason=intake.lost)
        await intake.close()
        if link is not None and link is self._link:
            raise LinkDown(intake.lost)

    async def _leave(self) -> None:
        """Consume no more, and remove what is this instance's own, where that is possible."""
        intake, self._intake = self._intake, None
        link = self._connection.link
        self._wishes.live = set()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if intake is not None:
                    await intake.close()
                if link is not None:
                    await self._source.leave(link)
        except (LinkError, TimeoutError) as exc:
            log.debug("broadcasts (%s) could not be left in good order: %s", self._label, exc)

    def _report(self, reason: str) -> None:
        """Have health say what does not arrive, if anything: a renewal that fails costs nothing."""
        if self._wishes.wanted - (self._wishes.live if self._works else set()):
            what = "some broadcasts" if self._works else "broadcasts"
            detail = f"{what} ({self._label}) do not arrive: {reason}"
            self._around.problems.report(self._part, "degraded", detail)

    @property
    def _works(self) -> bool:
        return self._intake is not None and self._intake.lost is None

    @property
    def _part(self) -> str:
        return f"broadcasts {self._label}"
