"""One run of a handler: its timeout, its abort signal, and how it ended."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.errors import HandlerTimeout
from cluster_kit.event_queue.outcome import meant
from cluster_kit.handler import conclude
from cluster_kit.loops import set_within
from cluster_kit.message import AbortSignal, HandlerAnswer

if TYPE_CHECKING:
    from cluster_kit.deadlines import Deadlines
    from cluster_kit.message import Envelope
    from cluster_kit.ports import Received


Key = tuple[str, str]
CopyKey = tuple[str, str, str]


class ShutDown(Exception):  # noqa: N818 - a verdict, never raised to users
    """The run was cut short because this instance stops; not the task's fault."""


class Place(NamedTuple):
    """What the runs of one subscription share.

    Attributes:
        grace: seconds a cancelled handler has to end.
        deadlines: of the runs.
        on_release: called once for each run whose slot is free again.
        torn_down: whether everything here is being cancelled, not a handler alone.
        stopping: whether nothing may begin any more.
    """

    grace: float
    deadlines: Deadlines
    on_release: Callable[[], None]
    torn_down: Callable[[], bool]
    stopping: Callable[[], bool]


class Spent(NamedTuple):
    """Stands where a delivery was that is settled already: another copy is the task now."""

    envelope: Envelope
    copy_id: str = ""
    redeliveries: int = 0
    redelivered: bool = True
    give_back_counts: bool = False
    lost: bool = True

    async def ack(self) -> None:
        """Nothing is left to be acknowledged."""

    async def give_back(self) -> None:
        """Nothing is left to be returned."""


class Run:
    """A delivery that was taken and is being run.

    A run outlives the connection its delivery came on: when the broker delivers the same copy
    again, the run adopts that delivery and settles it instead.

    Attributes:
        envelope: the task.
        timeout: seconds the handler may take.
        key: of the task, in the ledger.
        copy_key: of this copy, in the ledger.
        received: the newest delivery of this copy.
        former: earlier ones, most likely lost; settled along with it where they are not.
        running: the handler has not ended, or will be called (again); False once there is an
            outcome.
        stuck: it ignored cancellation for longer than the grace period.
        early: stores a stuck run's copy before its handler ends.
        settled_early: that copy is stored; whatever comes of this one is acknowledged at once.
        held: it may not begin yet, since an earlier delivery of its task ended without an outcome.
        given_back: it was returned to its queue without an outcome.
        begun: crashes of the task when this run began.
        renewal: stores a fresh copy while the handler runs.
        renewed: the attempt of a fresh copy that was sent and has not come yet; else 0.
        at: the deadline, on the event loop's clock.
    """

    # As every run begins. Most never have anything else here, and need not be given it.
    former: tuple[Received, ...] = ()
    running = True
    stuck = False
    early: asyncio.Task[None] | None = None
    settled_early = False
    held = False
    given_back = False
    begun: int | None = None
    renewal: asyncio.Task[None] | None = None
    renewed = 0
    at = math.inf
    _ended: asyncio.Event | None = None
    _released = False
    _signal: AbortSignal | None = None
    _task: asyncio.Task[None] | None = None
    _on_stuck: Callable[[Run], None] | None = None
    _timers: tuple[asyncio.TimerHandle, ...] = ()

    def __init__(self, received: Received, place: Place, *, timeout: float) -> None:
        envelope = received.envelope
        self.received = received
        self.copy_id = received.copy_id
        self.envelope: Envelope = envelope
        queue = envelope.queue.full
        self.key, self.copy_key = (queue, envelope.id), (queue, self.copy_id, envelope.id)
        self.timeout = timeout
        self._place = place

    @property
    def signal(self) -> AbortSignal:
        """The handler's abort signal, made when somebody asks for it: most handlers never do."""
        if self._signal is None:
            self._signal = AbortSignal()
        return self._signal

    @property
    def again(self) -> bool:
        """Whether an earlier delivery, of this copy or one before, ended without an outcome."""
        return self.received.redelivered or self.envelope.crashes > 0

    @property
    def withdrawn(self) -> bool:
        """Whether it must not begin any more: its task is somebody else's now, or is to be."""
        return self._place.stopping() or self.received.lost

    def adopt(self, received: Received) -> None:
        """Settle `received` instead: the same copy was delivered again."""
        if self.begun is None:
            self.begun = crashes(self.received)
        self.former = (*self.former, self.received)
        self.received = received

    def is_for(self, received: Received) -> bool:
        """Whether a copy with this run's id is to be settled along with it, and not run later.

        Most likely it is a repeated publish; it may also be the fresh copy of this run.
        """
        if not self.copy_id and not received.copy_id:
            return True
        attempt, own = received.envelope.attempt, self.envelope.attempt
        return (attempt <= own and not self.stuck) or attempt == self.renewed

    def is_worn(self, crash_limit: int) -> bool:
        """Whether its copy was delivered so often that others would take it for one that crashes.

        Each delivery that a lost connection ended is counted, though this run went on.
        """
        newest = self.received
        if not newest.redeliveries or crashes(newest) < crash_limit or not newest.copy_id:
            return False
        return self.running and not self.stuck and (self.renewal is None or self.renewal.done())

    def newest(self, copy_id: str) -> Received | None:
        """Return the last delivery of a copy, if there is one to be settled."""
        known = (self.received, *reversed(self.former))
        return next((each for each in known if each.copy_id == copy_id), None)

    def spend(self, copy_id: str) -> None:
        """Nothing of this copy is left to be settled."""
        self.former = tuple(each for each in self.former if each.copy_id != copy_id)
        if self.received.copy_id == copy_id:
            self.received = Spent(self.envelope)

    def recopy(self, copy_id: str) -> None:
        """Its fresh copy has come and stands for it from now on."""
        self.renewed = 0
        self.copy_id = copy_id
        self.copy_key = copy_key(self.envelope, copy_id)

    def begin_again(self) -> None:
        """The next attempt begins in place, for all that came of the task: with its own signal."""
        self.envelope = dataclasses.replace(self.envelope, attempt=self.envelope.attempt + 1)
        self._signal = None

    def end(self) -> None:
        """The handler has ended for good, or will never be called."""
        self.running = False
        if self._ended is not None:
            self._ended.set()

    async def ends_within(self, seconds: float) -> bool:
        """Wait for that end, at most so long, and return whether it has come."""
        self._ended = self._ended or asyncio.Event()
        return not self.running or await set_within(self._ended, seconds)

    def release(self) -> None:
        """Free the slot: the delivery is being settled, so the broker may send another. Once."""
        if not self._released:
            self._released = True
            self._place.on_release()

    async def execute(
        self, call: Callable[[], Awaitable[object]], on_stuck: Callable[[Run], None]
    ) -> BaseException | None:
        """Run the handler once and return the error it failed with, or None.

        A timeout is a `HandlerTimeout` whatever the handler made of its cancellation. A handler
        that ends by itself after the instance asked it to shut down keeps its result; one that
        was cut short gives `ShutDown`.
        """
        deadlines = self._place.deadlines
        self._task, self._on_stuck = asyncio.current_task(deadlines.loop), on_stuck
        deadlines.start(self, self.timeout)
        error: BaseException | None = None
        try:
            result = await call()
            if result is not None:
                await conclude(result)
        except KeyboardInterrupt:
            raise
        except GeneratorExit as exc:
            if not self._is_current():
                raise  # not raised by the handler: this coroutine is being thrown away
            error = exc
        except BaseException as exc:  # noqa: BLE001 - sys.exit() in a handler ends the task only
            error = meant(exc)
        finally:
            task, self._task = self._task, None  # nothing may be cancelled any more
            deadlines.end(self)
            self._disarm()
        reason = "" if self._signal is None else self._signal.reason
        try:
            if task is not None and task.cancelling():
                await self._uncancel(task, error)
            return self._verdict(error, reason) if reason else error
        finally:
            # Its traceback has this frame: together they would wait for the garbage collector.
            error = None

    async def _uncancel(self, task: asyncio.Task[object], error: BaseException | None) -> None:
        """Forget that the task was cancelled: settling the outcome must not be cut short by it.

        It was our doing, or the handler's own, unless everything here is being cancelled.

        Raises:
            asyncio.CancelledError: everything is.
        """
        torn_down = self._place.torn_down
        if isinstance(error, asyncio.CancelledError) and not self.signal.aborted and torn_down():
            self.signal.abort("cancelled")
            raise asyncio.CancelledError from error
        while task.cancelling():
            task.uncancel()
        # Before Python 3.13 a cancellation not yet delivered outlives this, and comes here.
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    def _is_current(self) -> bool:
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:  # no loop runs any more
            return False

    def expire(self) -> None:
        """The timeout has passed."""
        self.abort("timeout")

    def abort(self, reason: str) -> None:
        """Set the signal and cancel the handler. Reported as stuck if it does not end in time.

        One that cleans up after its timeout is not cancelled again by a stop: it keeps its grace.
        """
        if not self.running or (self.signal.aborted and not self.stuck):
            return
        self.signal.abort(reason)
        if self._task is not None:
            self._task.cancel()
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self._place.grace, self._report_stuck)
            self._timers = (*self._timers, timer)

    def _disarm(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _report_stuck(self) -> None:
        if self.running and not self.stuck and self._on_stuck is not None:
            self.stuck = True
            self._on_stuck(self)

    def _verdict(self, error: BaseException | None, reason: str) -> BaseException | None:
        if reason == "timeout":
            return HandlerTimeout(self.timeout)
        if reason == "shutdown" and not isinstance(error, HandlerAnswer | None):
            return ShutDown("cut short, because this instance stops")
        return error


def crashes(received: Received) -> int:
    """Return how many runs of a task ended without an outcome, as far as can be known."""
    return received.envelope.crashes + received.redeliveries


def task_key(envelope: Envelope) -> Key:
    """Return what the ledger knows a task by."""
    return envelope.queue.full, envelope.id


def copy_key(envelope: Envelope, copy_id: str) -> CopyKey:
    """Return what the ledger knows one copy of a task by."""
    # With the id, because other publishers may use one message id for many tasks.
    return envelope.queue.full, copy_id, envelope.id
