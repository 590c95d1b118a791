"""Receiving: a source, its bindings and its consumer, taken care of by one task of its own.

Callers only say what they want. The task makes it so, again after every loss, and is the only one
that asks the broker; so no caller that is cancelled leaves anything half way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.errors import TopologyError
from cluster_kit_amqp.backoff import LONGEST_DELAY, Backoff
from cluster_kit_amqp.broadcast.intake import Intake
from cluster_kit_amqp.broadcast.source import refuse
from cluster_kit_amqp.link import ChannelDown, Link, LinkError

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.broadcast.source import Refusals, Source
    from cluster_kit_amqp.connection import Connection
    from cluster_kit_amqp.health import Problems
    from cluster_kit_amqp.link import Incoming

log = logging.getLogger(__name__)

PASS_TIMEOUT = 10.0  # seconds for what the broker is asked at once
CLOSE_TIMEOUT = 2.0  # seconds
_LONGEST_REFUSAL_DELAY = 60.0  # seconds between attempts at what the broker refuses

TellGap = Callable[[Collection["Binding"], float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the attachments of one adapter share.

    Attributes:
        connection: that consumes.
        context: of the port.
        problems: what is wrong now.
        hand_over: takes a message.
        tell_gap: takes bindings, since when and why messages of theirs may be missing.
    """

    connection: Connection
    context: AdapterContext
    problems: Problems
    hand_over: Callable[[Incoming], None]
    tell_gap: TellGap


class _Debt(NamedTuple):
    """A gap to be told: seconds since 1970, and why."""

    since: float
    reason: str


class Attachment:
    """Keeps one source attached, with the bindings that are wished for."""

    def __init__(self, label: str, source: Source, around: Surroundings) -> None:
        self._label, self._source, self._around = label, source, around
        self._connection, self._context = around.connection, around.context
        self._wished: set[Binding] = set()
        self._live: set[Binding] = set()
        self._owed: dict[Binding, _Debt] = {}
        self._asking: dict[Binding, asyncio.Future[None]] = {}
        self._intake: Intake | None = None
        self._link: Link | None = None
        self._since = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._unsubscribe: Callable[[], None] = lambda: None

    # --- for the adapter ---------------------------------------------------------------------

    async def bind(self, binding: Binding) -> None:
        """Receive a binding; see the port."""
        self._wished.add(binding)
        if binding in self._live or self._closing:
            return
        self._start()
        if self._connection.link is None:
            self._owe_new(binding)
            return
        asked = self._asking.get(binding)
        if asked is None:
            asked = self._asking[binding] = asyncio.get_running_loop().create_future()
        self._wake.set()
        try:
            await asyncio.shield(asked)
        except asyncio.CancelledError:
            await self.unbind(binding)
            raise

    async def unbind(self, binding: Binding) -> None:
        """Receive it no more; returns at once, the broker follows."""
        self._wished.discard(binding)
        self._live.discard(binding)
        self._owed.pop(binding, None)
        self._wake.set()

    async def close(self) -> None:
        """Stop for good, and remove what is this instance's own."""
        self._closing = True
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

    def _owe_new(self, binding: Binding) -> None:
        now = self._context.clock.wall()
        self._owed.setdefault(binding, _Debt(now, "subscribed while the connection was lost"))
        self._report("the connection is lost")

    # --- the task ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._follow()
        finally:
            self._unsubscribe()
            self._answer_all()
            await self._leave()
            self._around.problems.clear(self._part)

    async def _follow(self) -> None:
        quick = Backoff(self._context, LONGEST_DELAY)
        slow = Backoff(self._context, _LONGEST_REFUSAL_DELAY)
        while not self._closing:
            self._wake.clear()
            pause: float | None = None
            try:
                async with asyncio.timeout(PASS_TIMEOUT):
                    await self._pass()
            except TopologyError as exc:
                for binding in tuple(self._asking):
                    self._refuse(binding, exc)
                pause = self._failed(str(exc), slow)
            except (LinkError, TimeoutError) as exc:
                pause = self._failed(str(exc) or "the broker did not answer", quick)
            except Exception as exc:
                log.exception("broadcasts (%s) failed, trying again", self._label)
                pause = self._failed(repr(exc), slow)
            else:
                quick.reset()
            await self._woken_within(pause)

    async def _woken_within(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _pass(self) -> None:
        """Do what is missing between what is and what is wished."""
        link = self._connection.link
        if self._intake is not None and self._intake.lost is not None:
            await self._drop()
        if link is None or self._closing:
            self._answer_all()
            return
        if not self._wished:
            await self._leave()
            if not self._wished:  # or somebody came meanwhile, and the next pass is theirs
                self._answer_all()
                self._around.problems.clear(self._part)
            return
        fresh = self._intake is None
        if fresh:
            missing = await self._source.open(link)
            if missing is not None:
                self._owe_live(missing)
        refused = await self._adjust(link)
        if fresh and self._wished:
            await self._attach(link)
        self._settle(refused)

    def _owe_live(self, reason: str) -> None:
        for binding in self._live:
            self._owed.setdefault(binding, _Debt(self._since, reason))

    async def _adjust(self, link: Link) -> Refusals:
        """Bring the bindings at the broker in line; return what it refused."""
        if stale := self._source.bound - self._wished:
            await self._source.unbind(link, stale)
        if missing := self._wished - self._source.bound:
            return await self._source.bind(link, sorted(missing, key=str))
        return {}

    async def _attach(self, link: Link) -> None:
        """Consume; what comes is held back until gaps are told."""
        channel = await link.open_channel()
        self._intake, self._link = Intake(channel, self._deliver, self._lost), link
        what = self._source.consumption()
        try:
            await self._intake.consume(what.queue, what.prefetch, what.arguments)
        except BaseException as exc:
            self._intake.lose("it could not consume", tell=False)
            if isinstance(exc, ChannelDown):
                refuse(what.queue, exc)
            raise
        self._context.emit("consumer.started", adapter="amqp", queue=what.queue)

    def _settle(self, refused: Refusals) -> None:
        """All that could be made is live: tell it, and let messages through."""
        intake = self._intake
        if intake is None or intake.lost is not None:
            return
        bound = self._source.bound & self._wished
        self._tell_gaps(bound)
        self._live = bound
        for binding in bound & self._asking.keys():
            self._answer(binding)
        for binding, error in refused.items():
            self._refuse(binding, error)
        intake.release()
        kept = [error for binding, error in refused.items() if binding in self._wished]
        if kept:
            raise kept[0]
        self._around.problems.clear(self._part)

    def _tell_gaps(self, bound: Collection[Binding]) -> None:
        told: dict[_Debt, list[Binding]] = {}
        for binding in bound:
            debt = self._owed.pop(binding, None)
            if debt is not None:
                told.setdefault(debt, []).append(binding)
        for debt, bindings in told.items():
            self._around.tell_gap(bindings, debt.since, debt.reason)

    def _deliver(self, incoming: Incoming) -> None:
        self._source.took(incoming)
        self._around.hand_over(incoming)

    # --- answers to `bind` -------------------------------------------------------------------

    def _answer(self, binding: Binding, error: TopologyError | None = None) -> None:
        asked = self._asking.pop(binding, None)
        if asked is None or asked.done():
            return
        if error is None:
            asked.set_result(None)
        else:
            asked.set_exception(error)

    def _refuse(self, binding: Binding, error: TopologyError) -> None:
        """Whoever waits for it is told; nobody wishes for it then."""
        if binding in self._asking:
            self._wished.discard(binding)
            self._answer(binding, error)

    def _answer_all(self) -> None:
        """What is not live by now will be, after a gap."""
        for binding in tuple(self._asking):
            if binding in self._wished and not self._closing:
                self._owe_new(binding)
            self._answer(binding)

    # --- losses ------------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        """The channel is gone. Called where that is found out."""
        silence = 0.0 if self._link is None else self._link.silence
        self._since = self._context.clock.wall() - silence
        self._report(reason)
        self._wake.set()

    def _failed(self, reason: str, backoff: Backoff) -> float:
        """Note why not all is as wished; return the seconds until the next attempt."""
        self._answer_all()
        self._report(reason)
        return backoff.next()

    async def _drop(self) -> None:
        """Give up the intake."""
        intake, self._intake = self._intake, None
        if intake is not None:
            self._context.emit(
                "consumer.lost", adapter="amqp", queue=self._source.name, reason=intake.lost
            )
            await intake.close()

    async def _leave(self) -> None:
        """Consume no more, and remove what is this instance's own, where that is possible."""
        intake, self._intake = self._intake, None
        link = self._connection.link
        self._live = set()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if intake is not None:
                    await intake.close()
                if link is not None:
                    await self._source.leave(link)
        except (LinkError, TimeoutError) as exc:
            log.debug("broadcasts (%s) could not be left in good order: %s", self._label, exc)

    def _report(self, reason: str) -> None:
        if self._wished:
            detail = f"broadcasts ({self._label}) do not arrive: {reason}"
            self._around.problems.report(self._part, "degraded", detail)

    @property
    def _part(self) -> str:
        return f"broadcasts {self._label}"
