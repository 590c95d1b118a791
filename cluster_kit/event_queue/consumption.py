"""The consumers of one instance while it is connected: opened, quieted, drained together."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Self

from cluster_kit.deadlines import Deadlines
from cluster_kit.errors import ConnectError, TransportError
from cluster_kit.event_queue.quarantine import Quarantine
from cluster_kit.event_queue.settlement import Settler
from cluster_kit.event_queue.subscription import Subscription
from cluster_kit.event_queue.surroundings import Surroundings
from cluster_kit.loops import OwnLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster_kit.clock import Clock
    from cluster_kit.event_queue.ledger import Ledger
    from cluster_kit.event_queue.registration import Registration
    from cluster_kit.event_queue.run import Run
    from cluster_kit.names import QueueName
    from cluster_kit.ports import Emit, EventQueueAdapter
    from cluster_kit.supervisor import Supervisor

log = logging.getLogger(__name__)

QUIET_TIMEOUT = 3.0
"""Seconds within which consumers pause when this instance stops."""


class Consumption:
    """Every subscription this instance has open, and those that are being given up."""

    def __init__(self, shared: Surroundings) -> None:
        self.shared = shared
        self.loop = OwnLoop("event queue")
        self._open: dict[QueueName, Subscription] = {}
        self._retiring: set[Subscription] = set()
        shared.quarantine.watch(self._in_hand, self._wake)

    @classmethod
    def on(
        cls,
        adapter: EventQueueAdapter,
        supervisor: Supervisor,
        *,
        ledger: Ledger,
        clock: Clock,
        report: Emit,
        publish_timeout: float,
    ) -> Self:
        """Return what consumes over a connected adapter."""
        settler = Settler(adapter, ledger, report, clock, publish_timeout=publish_timeout)
        shared = Surroundings(
            adapter=adapter,
            ledger=ledger,
            quarantine=Quarantine(clock),
            settler=settler,
            supervisor=supervisor,
            clock=clock,
            report=report,
            deadlines=Deadlines(),
        )
        return cls(shared)

    async def start(
        self, registrations: Iterable[Registration], wanted: Callable[[Registration], bool]
    ) -> None:
        """Open those still wanted; the first whose queue is not as it should be raises.

        So does one the broker has no connection for. One that meets another failure on the way
        there opens as soon as that is possible.
        """
        for registration in registrations:
            if not wanted(registration):
                continue
            subscription = self._add(registration)
            try:
                await subscription.open()
            except ConnectError:
                raise
            except TransportError:  # told by the next attempt, should that fail too
                self._open_later(subscription)

    def open_later(self, registration: Registration) -> None:
        """Open a consumer in the background, however long it takes until that is possible.

        Not before what an earlier subscription of the queue runs has ended: the bound on
        concurrency is the instance's.
        """
        former = [s for s in self._retiring if s.queue == registration.queue]
        self._open_later(self._add(registration), after=former)

    def retire(self, queue: QueueName) -> None:
        """Take nothing more from `queue`; what runs finishes."""
        subscription = self._open.pop(queue, None)
        if subscription is not None:
            self._retiring.add(subscription)
            self.shared.supervisor.spawn(self._retire(subscription), name=f"retire:{queue}")

    async def quiet(self) -> None:
        """Take nothing more and give back what had not started.

        A link that does not answer is not waited for: closing the consumers returns the rest.
        """
        for subscription in self._all():
            subscription.refuse()
        calls = [subscription.quiet for subscription in self._all()]
        try:
            async with asyncio.timeout(QUIET_TIMEOUT):
                errors = await self.shared.supervisor.run_all(calls, limit=len(calls))
        except TimeoutError:
            log.warning("the broker does not answer; stopping without it")
        else:
            for error in errors:
                if error is not None:
                    log.error("a consumer did not pause well", exc_info=error)

    async def drain(self, timeout: float, grace: float) -> list[str]:
        """Wait `timeout` seconds for what runs, then cancel it and wait `grace` seconds more.

        Returns the ids of tasks that were cut short, sorted.
        """
        if runs := self._runs():
            log.info("draining: %d tasks run, up to %g s", len(runs), timeout)
        if await self._finished(timeout):
            return []
        runs = self._runs()
        if running := _ids(run for run in runs if run.running and not run.held):
            log.warning("cutting short %d tasks: %s", len(running), ", ".join(running))
        self.shared.settler.hurry()
        for subscription in self._all():
            subscription.abort()
        if not await self._finished(grace):
            self._tell_left()
        left = set(self._runs())
        return _ids(run for run in runs if run.given_back or run in left)

    async def close(self) -> None:
        """Close every consumer; what is unsettled goes back to its queue."""
        closing = [subscription.close for subscription in self._all()]
        self._open.clear()
        self._retiring.clear()
        for error in await self.shared.supervisor.run_all(closing, limit=len(closing)):
            if error is not None:
                log.error("a consumer did not close well", exc_info=error)
        self.shared.deadlines.close()

    def running(self) -> dict[str, int]:
        """Return the number of running tasks by channel."""
        running: Counter[str] = Counter()
        for subscription in self._all():
            running[subscription.queue.channel] += len(subscription.runs())
        return dict(running)

    def troubles(self) -> list[str]:
        """Return why consumers that should be there are not, and what cannot be settled."""
        troubles = [s.trouble for s in self._open.values() if s.trouble is not None]
        return troubles + self.shared.settler.troubles()

    def _add(self, registration: Registration) -> Subscription:
        subscription = Subscription(
            registration.queue,
            registration.handler,
            registration.judge,
            registration.options,
            self.shared,
        )
        self._open[registration.queue] = subscription
        return subscription

    def _open_later(self, subscription: Subscription, after: Iterable[Subscription] = ()) -> None:
        async def open_in_turn() -> None:
            for former in after:
                if left := len(former.runs()):
                    text = "cannot consume %s again before its %d running tasks have ended"
                    subscription.trouble = text % (subscription.queue, left)
                await former.finished()
            await subscription.open_patiently()

        self.shared.supervisor.spawn(open_in_turn(), name=f"open:{subscription.queue}")

    async def _retire(self, subscription: Subscription) -> None:
        await subscription.retire()
        self._retiring.discard(subscription)

    async def _finished(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                for subscription in self._all():
                    await subscription.finished()
        except TimeoutError:
            return False
        return True

    def _tell_left(self) -> None:
        """Say what is to blame for each task that has not ended: its handler, or the broker."""
        runs = self._runs()
        if stuck := _ids(run for run in runs if run.running):
            log.error("tasks that ignore their cancellation: %s", ", ".join(stuck))
        if unsettled := _ids(run for run in runs if not run.running):
            text = "the broker did not take the outcomes in time of tasks that go back to it: %s"
            log.error(text, ", ".join(unsettled))

    def _runs(self) -> list[Run]:
        return [run for subscription in self._all() for run in subscription.runs()]

    def _in_hand(self) -> list[object]:
        return [each for subscription in self._all() for each in subscription.in_hand()]

    def _wake(self) -> None:
        for subscription in self._all():
            subscription.wake()

    def _all(self) -> list[Subscription]:
        return [*self._open.values(), *self._retiring]


def _ids(runs: Iterable[Run]) -> list[str]:
    return sorted(run.envelope.id for run in runs)
