"""The attempts at a task for which it needs not go back to the broker: calls of its handler."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING

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
    from cluster_kit.event_queue.surroundings import Options, Surroundings
    from cluster_kit.handler import Handler
    from cluster_kit.message import Envelope

log = logging.getLogger(__name__)

_STOPPED = GiveBack("this instance stops")
_ANSWERS = (HandlerAnswer, ShutDown)


class Attempts:
    """Calls the handler of one channel until a task has an outcome that is to be settled."""

    def __init__(
        self, channel: str, handler: Handler, judge: Judge, options: Options, shared: Surroundings
    ) -> None:
        self._channel = channel
        self._handler = handler
        self._judge = judge
        self._options = options
        self._shared = shared

    def prepare(self, run: Run) -> tuple[object, Outcome | None]:
        """Return the payload, or what becomes of a task that must not or cannot be run."""
        if (late := self.expiry(run)) is not None:
            return None, late
        envelope = run.envelope
        try:
            return self._handler.decode(envelope.body, envelope.content_type), None
        except DecodeError as exc:
            return None, self._judge.dead(envelope, DeadReason.UNDECODABLE, exc)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - of a validator, which ends the task only
            return None, self._failed(run, exc)

    def expiry(self, run: Run) -> Dead | None:
        """Return the end of a task whose time to live is over."""
        expires_at = run.envelope.expires_at
        if expires_at is not None and self._shared.clock.wall() >= expires_at:
            return self._judge.dead(run.envelope, DeadReason.EXPIRED)
        return None

    async def attempt(self, run: Run, payload: object) -> Outcome:
        """Call the handler once and return what becomes of the task."""
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

    async def in_place(self, run: Run, outcome: Outcome) -> Outcome:
        """Call the handler for each retry that may begin here; return what is to be settled."""
        while isinstance(outcome, Again) and outcome.in_place:
            await asyncio.sleep(0)  # a handler that fails at once would keep everybody waiting
            if run.stuck or run.withdrawn:
                break
            failed = run.envelope
            run.begin_again()
            # Decoded anew: the handler may have changed what it was given.
            payload, refused = self.prepare(run)
            if refused is not None:
                return refused
            self._retried(failed, outcome.error)
            outcome = await self.attempt(run, payload)
        return outcome

    def _retried(self, failed: Envelope, error: BaseException) -> None:
        id_, attempt = failed.id, failed.attempt
        log.info("task %s on %s runs again in place", id_, self._channel)
        self._shared.report(
            "task.retried", channel=self._channel, id=id_, attempt=attempt, delay=0.0, error=error
        )

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

        Once that is stored the delivery is acknowledged, or it would come again when this process
        dies, and be stored anew each time. Here the slot stays taken until the handler ends.
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
        if isinstance(outcome, Again):
            outcome = outcome._replace(envelope=self._counted(run, outcome.envelope))
        if isinstance(outcome, Again | Dead):
            run.settled_early = await self._shared.settler.store(envelope, outcome)
        if run.settled_early:
            if run.renewal is not None:
                await asyncio.wait({run.renewal})
            await self._shared.settler.ack(run)
            run.spend(run.copy_id)

    def _counted(self, run: Run, copy: Envelope) -> Envelope:
        """Return a stuck run's copy with the crash that run may still become, which nobody sees.

        Being stuck makes no suspect: up to half of the crash limit it only waits for its turn.
        """
        known = crashes(run.received) if run.begun is None else run.begun  # losses are none
        half = self._options.crash_limit // 2
        counted = known + 1
        return dataclasses.replace(copy, crashes=counted if known > half else min(counted, half))

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
