"""Takes one delivery from its checks to its settlement."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.clock import utc
from cluster_kit.errors import DecodeError, HandlerTimeout
from cluster_kit.event_queue.outcome import (
    DONE,
    Again,
    Dead,
    GiveBack,
    Judge,
    Outcome,
    in_one_line,
)
from cluster_kit.event_queue.run import Run, ShutDown, crashes
from cluster_kit.message import DeadReason, Delivery, HandlerAnswer

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.deadlines import Deadlines
    from cluster_kit.event_queue.ledger import Ledger
    from cluster_kit.event_queue.quarantine import Quarantine
    from cluster_kit.event_queue.settlement import Settler
    from cluster_kit.handler import Handler
    from cluster_kit.message import Envelope
    from cluster_kit.ports import Emit, EventQueueAdapter
    from cluster_kit.supervisor import Supervisor

log = logging.getLogger(__name__)

_STOPPED = GiveBack("this instance stops")
_NOT_BEGUN = GiveBack("it was not begun")
_ANSWERS = (HandlerAnswer, ShutDown)


class Options(NamedTuple):
    """Options of a subscription; durations in seconds, defaults already filled in."""

    concurrency: int
    timeout: float
    max_retries: int
    crash_limit: int
    cancel_grace: float
    idle: Callable[[], bool] | None


class Surroundings(NamedTuple):
    """What every subscription of an instance shares while it is connected."""

    adapter: EventQueueAdapter
    ledger: Ledger
    quarantine: Quarantine
    settler: Settler
    supervisor: Supervisor
    clock: Clock
    report: Emit
    deadlines: Deadlines


class Worker:
    """Runs tasks of one channel: checks, decodes, calls the handler, settles the outcome."""

    def __init__(
        self, channel: str, handler: Handler, judge: Judge, options: Options, shared: Surroundings
    ) -> None:
        self._channel = channel
        self._handler = handler
        self._judge = judge
        self._options = options
        self._shared = shared

    async def work(self, run: Run) -> bool:
        """Take `run` to its end. Errors of the handler become outcomes, not exceptions.

        False when it was not begun and is to go back as it came.
        """
        shared = self._shared
        try:
            try:
                outcome = await self._outcome(run)
            finally:
                shared.quarantine.leave(run)
            if run.renewal is not None:
                await asyncio.wait({run.renewal})
            if outcome is _NOT_BEGUN:
                return False
            shared.ledger.settling(run)
            if run.early is not None:
                await asyncio.wait({run.early})
            if run.settled_early:
                await shared.settler.ack(run)
            else:
                await shared.settler.settle(run, outcome)
        finally:
            shared.ledger.end(run)
        return True

    async def _outcome(self, run: Run) -> Outcome:
        payload, refused = self._payload(run)
        if refused is not None:
            run.end()  # it never did
            return refused
        if run.held:
            begins, run.held = await self._shared.quarantine.admit(run), False
            late = self._expiry(run.envelope)
            if late is not None or not begins:
                run.end()
                return late if begins and late is not None else _NOT_BEGUN
        shared, report = self._shared, self._shared.report
        channel, id_, attempt = self._channel, run.envelope.id, run.envelope.attempt
        again = run.again
        report("task.started", channel=channel, id=id_, attempt=attempt, redelivered=again)
        delivery = self._delivery(run) if self._handler.needs_delivery else None
        started = shared.clock.monotonic()
        call = self._handler.bind(payload, delivery, shared.supervisor)
        error = await run.execute(call, self._settle_stuck)
        if error is not None:
            return self._failed(run, error)
        spent = shared.clock.monotonic() - started
        report("task.done", channel=channel, id=id_, attempt=attempt, seconds=spent)
        return DONE

    def _payload(self, run: Run) -> tuple[object, Outcome | None]:
        """Return the payload, or what becomes of a task that must not or cannot be run."""
        envelope = run.envelope
        if (dead := self._refusal(run)) is not None:
            return None, dead
        try:
            return self._handler.decode(envelope.body, envelope.content_type), None
        except DecodeError as exc:
            return None, self._judge.dead(envelope, DeadReason.UNDECODABLE, exc)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - of a validator, which ends the task only
            return None, self._failed(run, exc)

    def _refusal(self, run: Run) -> Dead | None:
        """Return why the task must not be run at all."""
        envelope, unexplained = run.envelope, crashes(run.received)
        if unexplained > self._options.crash_limit:
            text = f"delivered {unexplained + 1} times without an outcome"
            return self._judge.dead(envelope, DeadReason.CRASHED, text=text)
        return self._expiry(envelope)

    def _expiry(self, envelope: Envelope) -> Dead | None:
        if envelope.expires_at is not None and self._shared.clock.wall() >= envelope.expires_at:
            return self._judge.dead(envelope, DeadReason.EXPIRED)
        return None

    def _failed(self, run: Run, error: BaseException) -> Outcome:
        envelope = run.envelope
        self._log(envelope, error, self._max_retries(envelope))
        if isinstance(error, ShutDown):
            return _STOPPED
        return self._verdict(envelope, error)

    def _verdict(self, envelope: Envelope, error: BaseException) -> Outcome:
        try:
            return self._judge.verdict(envelope, error, max_retries=self._max_retries(envelope))
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            # A policy of the user's making: without an outcome the task would run for ever.
            log.exception("the retry policy of %s failed", self._channel)
            return self._judge.dead(envelope, DeadReason.FAILED, exc)

    def _log(self, envelope: Envelope, error: BaseException, max_retries: int) -> None:
        """Write one line; a traceback is worth its price when it is asked for, or at the end."""
        level = logging.INFO if isinstance(error, _ANSWERS) else logging.WARNING
        if not log.isEnabledFor(level):
            return
        place = (envelope.id, self._channel, envelope.attempt, max_retries + 1)
        if level == logging.INFO:
            text = "task %s on %s, attempt %d of %d: %s: %s"
            log.info(text, *place, type(error).__name__, error)
        else:
            text = "task %s on %s, attempt %d of %d, did not succeed: %s"
            shown = error if log.isEnabledFor(logging.DEBUG) else None
            log.warning(text, *place, in_one_line(error), exc_info=shown)

    def _settle_stuck(self, run: Run) -> None:
        """A handler ignores its cancellation: report it, and let the next attempt go ahead.

        Its delivery stays unacknowledged until it ends, which keeps its slot taken at the broker
        as it is here.
        """
        self._shared.quarantine.leave(run)  # it may stay for ever
        envelope, channel = run.envelope, self._channel
        attempt, seconds = envelope.attempt, run.timeout
        self._shared.report(
            "task.stuck", channel=channel, id=envelope.id, attempt=attempt, seconds=seconds
        )
        log.error(
            "task %s on %s ignores its cancellation (%s); its slot stays taken until it ends",
            envelope.id,
            channel,
            run.signal.reason,
        )
        if run.signal.reason == "timeout":
            name = f"stuck:{channel}:{envelope.id}"
            run.early = self._shared.supervisor.spawn(self._store_early(run), name=name)

    async def _store_early(self, run: Run) -> None:
        envelope = run.envelope
        outcome = self._verdict(envelope, HandlerTimeout(run.timeout))
        if isinstance(outcome, Again | Dead):
            run.settled_early = await self._shared.settler.store(envelope, outcome)

    def _max_retries(self, envelope: Envelope) -> int:
        own = envelope.max_retries
        return self._options.max_retries if own is None else own

    def _delivery(self, run: Run) -> Delivery:
        envelope = run.envelope
        published = envelope.published_at
        return Delivery(
            id=envelope.id,
            channel=self._channel,
            attempt=envelope.attempt,
            max_retries=self._max_retries(envelope),
            published_at=None if published is None else utc(published),
            deadline=utc(self._shared.clock.wall() + run.timeout),
            headers=envelope.headers,
            redelivered=run.again,
            signal=run.signal,
            id_is_stable=envelope.id_is_stable,
        )
