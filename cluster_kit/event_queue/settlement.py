"""Carries outcomes out: store the copy first, acknowledge after, lose nothing between."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectionLost, EncodeError, PublishUnconfirmed
from cluster_kit.event_queue.outcome import Again, Dead, Done, GiveBack, Outcome, unstorable
from cluster_kit.event_queue.run import crashes
from cluster_kit.loops import set_within
from cluster_kit.message import DeadReason
from cluster_kit.wording import shorten

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.event_queue.ledger import Ledger
    from cluster_kit.event_queue.run import Run
    from cluster_kit.message import Envelope
    from cluster_kit.ports import Emit, EventQueueAdapter, Received

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between tries to store a copy the broker does not take."""


class Settler:
    """Settles deliveries of one instance.

    The order is fixed: a copy (retry, dead letter) is confirmed by the broker before the
    original is acknowledged. A crash between the two repeats a task and never loses one.
    """

    def __init__(
        self,
        adapter: EventQueueAdapter,
        ledger: Ledger,
        report: Emit,
        clock: Clock,
        *,
        publish_timeout: float,
    ) -> None:
        self._adapter = adapter
        self._ledger = ledger
        self._report = report
        self._clock = clock
        self._timeout = publish_timeout
        self._hurry = asyncio.Event()
        self._waiting: dict[str, str] = {}

    def hurry(self) -> None:
        """From now on give back what cannot be settled at once: this instance is stopping."""
        self._hurry.set()

    def settle(self, run: Run, outcome: Outcome) -> Awaitable[None]:
        """Carry out `outcome` for `run`. Await what is returned: then it is done.

        The slot is free before the acknowledgement, because the next delivery may follow at once.
        """
        if isinstance(outcome, Done):
            self._ledger.done(run.envelope)
            run.release()
            return self.ack(run)
        return self._settle_otherwise(run, outcome)

    async def _settle_otherwise(self, run: Run, outcome: Again | Dead | GiveBack) -> None:
        if isinstance(outcome, GiveBack):
            await self._give_back_all(run, outcome.why)
            return
        if not await self.store(run.envelope, outcome):
            why = "the broker did not take its copy before this instance stopped"
            await self._give_back_all(run, why)
            return
        run.release()
        await self.ack(run)

    async def store(self, envelope: Envelope, outcome: Again | Dead) -> bool:
        """Publish the copy until the broker has it; False when hurried before it did."""
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    await self._store_once(envelope, outcome)
                except Exception as exc:  # noqa: BLE001 - whatever it is, nothing may be lost
                    if isinstance(exc, EncodeError) and isinstance(outcome, Again):
                        outcome = unstorable(envelope, outcome, exc)
                        continue
                    log.warning("cannot store the outcome of task %s yet: %s", envelope.id, exc)
                    self._waiting[envelope.id] = str(exc)
                else:
                    return True
                if self._hurry.is_set():
                    return False
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            self._waiting.pop(envelope.id, None)

    def troubles(self) -> list[str]:
        """Return which outcomes could not be stored so far, and why; a slot waits for each."""
        return [
            f"the outcome of task {name} cannot be stored: {shorten(why, 300)}"
            for name, why in self._waiting.items()
        ]

    async def _pause(self, seconds: float) -> None:
        """Wait, unless this instance is in a hurry."""
        await set_within(self._hurry, seconds)

    async def _store_once(self, envelope: Envelope, outcome: Again | Dead) -> None:
        name, channel = envelope.id, envelope.queue.channel
        if isinstance(outcome, Again):
            await self._adapter.publish(
                outcome.envelope, delay=outcome.delay, timeout=self._timeout
            )
            shown = {"delay": outcome.delay}
            log.info("task %s on %s runs again in %.3g s", name, channel, outcome.delay)
            if outcome.event == "task.retried":
                shown |= {"attempt": envelope.attempt, "error": outcome.error}  # type: ignore[dict-item]
            self._report(outcome.event, channel=channel, id=name, **shown)
            return
        death = dataclasses.replace(outcome.death, died_at=self._clock.wall())
        dead = dataclasses.replace(outcome.envelope, death=death)
        await self._adapter.bury(dead, timeout=self._timeout)
        why = f"{death.reason}: {death.error_text}" if death.error_text else death.reason
        # Here, once, and not with each attempt, stands the traceback of a handler's error.
        cause = outcome.error if death.reason is DeadReason.FAILED else None
        text = "task %s on %s is a dead letter now, %s"
        log.warning(text, name, channel, shorten(why, 300), exc_info=cause)
        self._report(
            "task.dead",
            channel=channel,
            id=name,
            attempt=envelope.attempt,
            reason=death.reason,
            error=outcome.error,
        )

    async def ack(self, run: Run) -> None:
        """Acknowledge the newest delivery of the run's copy, or remember that it is missing."""
        while True:
            received = run.received
            try:
                await received.ack()
            except ConnectionLost:
                if run.received is not received:
                    continue  # the copy was delivered again meanwhile
                self._ack_lost(received)
            else:
                self._ledger.settled(received, ack_lost=False)
            break
        if run.former or run.received is not received:
            await self._ack_others(run, received)

    async def _ack_others(self, run: Run, newest: Received) -> None:
        """Acknowledge what came for a run before the delivery that is settled, or after it."""
        settled = 0
        while settled < len(run.former):  # another may be adopted meanwhile
            await self._ack_former(run.former[settled], newest)
            settled += 1
        if run.received is not newest:
            await self._ack_former(run.received, newest)

    async def _ack_former(self, former: Received, newest: Received) -> None:
        """Acknowledge this copy as it came before a loss, or another one under the same id."""
        try:
            await former.ack()
        except ConnectionLost:
            if former.copy_id != newest.copy_id:
                self._ack_lost(former)
        else:
            self._ledger.settled(former, ack_lost=False)

    def _ack_lost(self, received: Received) -> None:
        envelope = received.envelope
        self._ledger.settled(received, ack_lost=True)
        self._report("task.ack_lost", channel=envelope.queue.channel, id=envelope.id)

    async def _give_back_all(self, run: Run, why: str) -> None:
        run.given_back = True
        run.release()
        given: list[Received] = []
        while left := [r for r in (*run.former, run.received) if r not in given]:
            for received in left:  # more may be adopted meanwhile
                given.append(received)
                await self.give_back(received, why)

    async def renew(self, run: Run) -> None:
        """Put a fresh copy in the place of one that wore out while its handler runs on.

        It counts the crashes there were before this run, and none of the connections lost during
        it: else the task would end as one that crashes, at another instance or at the broker.
        Where it may be stored or not, the worn one stays until the next loss: each try may leave
        a copy.
        """
        worn = run.received.copy_id
        if not await self._store_afresh(run):
            return
        while (received := run.newest(worn)) is not None:
            try:
                await received.ack()
            except ConnectionLost:
                if run.newest(worn) is not received:
                    continue  # it was delivered again meanwhile
                self._ledger.settled(received, ack_lost=True)
            else:
                self._ledger.settled(received, ack_lost=False)
            run.spend(worn)

    async def _store_afresh(self, run: Run) -> bool:
        """Publish a copy without this run's losses, while the handler runs on and none is there."""
        pause = FIRST_PAUSE
        while not run.settled_early:
            fresh = dataclasses.replace(run.envelope, crashes=run.begun or 0)
            run.renewed = fresh.attempt  # the fresh copy may come before its confirm
            try:
                await self._adapter.publish(fresh, delay=0.0, timeout=self._timeout)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the task must not be lost
                log.warning("task %s cannot be stored afresh yet: %s", fresh.id, exc)
                if isinstance(exc, PublishUnconfirmed):
                    return False
                run.renewed = 0
            else:
                self._report("task.renewed", channel=fresh.queue.channel, id=fresh.id)
                return True
            if await run.ends_within(pause) or self._hurry.is_set():
                return False
            pause = min(pause * 2, LONGEST_PAUSE)
        return True

    async def ack_remembered(self, received: Received) -> None:
        """Acknowledge a copy whose task needs no further run here."""
        envelope = received.envelope
        log.info("task %s needs no further run: this instance has it already", envelope.id)
        try:
            await received.ack()
        except ConnectionLost:
            return  # it comes again and is met here again
        self._ledger.acked(received)
        self._report("task.ack_remembered", channel=envelope.queue.channel, id=envelope.id)

    async def give_back(self, received: Received, why: str) -> None:
        """Return the task to its queue."""
        envelope = received.envelope
        self._report("task.given_back", channel=envelope.queue.channel, id=envelope.id, why=why)
        try:
            await received.give_back()
        except ConnectionLost:
            log.debug("task %s went back by itself: the connection was lost", envelope.id)

    async def give_back_unbegun(self, received: Received, crash_limit: int | None) -> bool:
        """Give back a task that did not start, without wearing it out; False: it is still ours.

        Brokers that count every give-back as a redelivery would in the end take a task that only
        met busy instances for one that kills its workers. So from half of the crash limit on it is
        stored afresh with the count it has, or kept until it is taken here. A suspect is stored
        afresh at any broker, which puts it behind the others in line.
        None for `crash_limit` has it given back in any case.
        """
        why = "this instance takes no more at the moment"
        if crash_limit is not None:
            known, half, counts = crashes(received), crash_limit // 2, received.give_back_counts
            if known > half or (counts and known == half):
                if await self.postpone(received, 0.0, why, worn=known):
                    return True
                if counts:
                    return False
        await self.give_back(received, why)
        return True

    async def postpone(
        self, received: Received, delay: float, why: str, *, worn: int | None = None
    ) -> bool:
        """Return the task to its queue as a fresh copy, `delay` seconds from now.

        Unlike `give_back` this moves it behind others, and its redeliveries count no more, unless
        `worn` is to be their number.
        One that is lost meanwhile comes again by itself: a copy would double it.
        False when the broker did not take the copy; then the delivery is still ours.
        """
        envelope = received.envelope
        if received.lost:
            log.debug("task %s went back by itself: the connection was lost", envelope.id)
            return True
        if worn is not None:
            envelope = dataclasses.replace(envelope, crashes=worn)
        try:
            await self._adapter.publish(envelope, delay=delay, timeout=self._timeout)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the task must not be lost
            log.warning("task %s cannot be postponed: %s", envelope.id, exc)
            return False
        with suppress(ConnectionLost):
            await received.ack()
        self._report("task.given_back", channel=envelope.queue.channel, id=envelope.id, why=why)
        return True

    async def postpone_twin(
        self, received: Received, delay: float, stopping: Callable[[], bool]
    ) -> None:
        """Have another copy of a task that runs here wait in the broker for `delay` seconds.

        Where give-backs are counted it is kept until the broker takes the copy: a task that waits
        through an alarm would end as one that crashes.
        """
        why = "an earlier attempt still runs in this instance"
        while not await self.postpone(received, delay, why):
            await self._pause(FIRST_PAUSE)  # it may come straight back
            if not received.give_back_counts or stopping():
                await self.give_back(received, why)
                return
