"""One channel consumed by this instance: slots, idle, and what to do with each delivery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from cluster_kit.errors import ConnectionLost, TopologyError, TransportError
from cluster_kit.event_queue.idleness import Idleness
from cluster_kit.event_queue.outcome import GiveBack
from cluster_kit.event_queue.quarantine import is_suspect
from cluster_kit.event_queue.run import Place, Run, crashes
from cluster_kit.event_queue.surroundings import Options, Surroundings
from cluster_kit.event_queue.worker import Worker
from cluster_kit.loops import set_within

if TYPE_CHECKING:
    from cluster_kit.event_queue.outcome import Judge
    from cluster_kit.handler import Handler
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import Consumer, Received

log = logging.getLogger(__name__)

IDLE_POLL = 0.2
"""Seconds between questions to `idle` while it answers no."""

TWIN_DELAY = 1.0
"""Seconds a task waits in the broker while an earlier attempt of it still runs here."""

OPEN_PAUSE, OPEN_PAUSE_TOPOLOGY = 1.0, 30.0
"""Seconds between tries to open a consumer: at first, and at most."""

UNSETTLED_PAUSE = 1.0
"""Seconds before a task is given back that could not be settled, for a reason nobody foresaw."""


class Subscription:
    """Takes tasks of one queue and runs them, never more than `concurrency` at a time.

    Attributes:
        queue: whose tasks.
        trouble: why it could not be opened so far; None when there is none.
    """

    def __init__(
        self,
        queue: QueueName,
        handler: Handler,
        judge: Judge,
        options: Options,
        shared: Surroundings,
    ) -> None:
        self.queue = queue
        self._worker = Worker(queue.channel, handler, judge, options, shared)
        self._options = options
        self._idleness = Idleness(queue.channel, options.idle, shared.clock)
        self._shared = shared
        self._consumer: Consumer | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._place = Place(
            grace=options.cancel_grace,
            deadlines=shared.deadlines,
            on_release=self._release,
            torn_down=self._torn_down,
            stopping=lambda: self._stopping,
        )
        self._runs: set[Run] = set()
        self._busy = 0
        self._chores: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()
        self._turn = asyncio.Event()
        self._balancing = asyncio.Lock()
        self._refused: list[Received] = []
        self._kept: list[Received] = []
        self._met_suspect = False
        self._taking, self._prefetch = True, options.concurrency
        self._stopping = False
        self.trouble: str | None = None

    # --- life ---

    async def open(self) -> None:
        """Start taking. Raises as `EventQueueAdapter.consume`."""
        self._taking = self._may_take()
        consumer = await self._shared.adapter.consume(
            self.queue,
            prefetch=self._options.concurrency,
            on_delivery=self._on_delivery,
            paused=not self._taking,
        )
        if self._stopping:
            await consumer.close()
            return
        self._consumer = consumer
        self._keeper = self._shared.supervisor.spawn(self._keep(), name=f"keeper:{self.queue}")

    async def open_patiently(self) -> None:
        """Start taking, however long it takes until that is possible."""
        pause = OPEN_PAUSE
        while not self._stopping:
            try:
                await self.open()
            except TransportError as exc:
                self._cannot_yet(exc)
                await self._shared.clock.sleep(pause)
                if not isinstance(exc, ConnectionLost):  # it is there, and says no
                    pause = min(pause * 2, OPEN_PAUSE_TOPOLOGY)
            except Exception as exc:
                self.trouble = f"cannot consume {self.queue}: {exc}"
                unforeseen = not isinstance(exc, TopologyError)  # which says it all
                log.error(self.trouble, exc_info=unforeseen)  # noqa: TRY400 - both are wanted
                await self._shared.clock.sleep(OPEN_PAUSE_TOPOLOGY)
            else:
                self.trouble = None
                return

    def _cannot_yet(self, error: TransportError) -> None:
        """Say why in health; in the log once, until there is another reason."""
        told, self.trouble = self.trouble, f"cannot consume {self.queue} yet: {error}"
        if told != self.trouble:
            log.warning(self.trouble)

    async def quiet(self) -> None:
        """Take nothing more; give back what had not started."""
        self.refuse()
        await self._balance()

    def refuse(self) -> None:
        """Take nothing more."""
        self._stopping = True

    async def finished(self) -> None:
        """Wait until nothing runs any more."""
        while self._runs or self._chores:
            self._finished.clear()
            await self._finished.wait()

    def abort(self) -> None:
        """Cancel what runs, because the instance stops. Uses no attempt."""
        for run in tuple(self._runs):
            run.abort("shutdown")

    def runs(self) -> list[Run]:
        """Return what runs now."""
        return list(self._runs)

    def wake(self) -> None:
        """See at once whether more may be taken."""
        self._turn.set()

    def in_hand(self) -> list[object]:
        """Return what is not settled, whether it runs or not; what is stuck is left out."""
        runs = (run for run in self._runs if not run.stuck)
        return [*runs, *self._refused, *self._kept, *self._chores]

    async def close(self) -> None:
        """Stop for good; what is still unsettled goes back to the queue."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
        if self._consumer is not None:
            await self._consumer.close()

    async def retire(self) -> None:
        """Stop taking, let what runs finish, close."""
        await self.quiet()
        await self.finished()
        await self.close()

    # --- deliveries ---

    def _on_delivery(self, received: Received) -> None:
        ledger, settler = self._shared.ledger, self._shared.settler
        envelope = received.envelope
        if ledger.is_new(received):
            self._take_or_refuse(received)
        elif ledger.only_ack_missing(received) or ledger.is_done(envelope):
            self._do(settler.ack_remembered(received), envelope)
        elif (run := ledger.same_copy(received)) is not None:
            self._adopt(run, received)
        elif (run := ledger.same_id(envelope)) is not None:
            self._meet_twin(run, received)
        else:
            self._take_or_refuse(received)

    def _take_or_refuse(self, received: Received) -> None:
        if self._shared.quarantine.bars(received, self._options.crash_limit):
            self._met_suspect = True
            self._refuse(received)
        elif self._may_take():
            self._take(received)
        else:
            self._refuse(received)

    def _refuse(self, *received: Received) -> None:
        self._refused.extend(received)
        self._turn.set()

    def _meet_twin(self, run: Run, received: Received) -> None:
        """Deal with another copy of a task whose handler runs here at this moment."""
        if run.is_for(received):
            # With the run, not before: its own delivery may be lost, and this the only copy.
            self._adopt(run, received)
        else:
            chore = self._shared.settler.postpone_twin(received, TWIN_DELAY, self._place.stopping)
            self._do(chore, received.envelope)

    def _adopt(self, run: Run, received: Received) -> None:
        self._shared.ledger.adopt(run, received)
        if run.settled_early:
            self._do(self._shared.settler.ack(run), run.envelope)
        elif run.is_worn(self._options.crash_limit):
            run.renewal = self._do(self._shared.settler.renew(run), run.envelope)

    def _may_take(self) -> bool:
        if self._stopping or self._shared.quarantine.taken:
            return False
        return self._busy < self._options.concurrency and self._idleness.allows()

    def _take(self, received: Received) -> None:
        timeout = received.envelope.timeout or self._options.timeout
        run = Run(received, self._place, timeout=timeout)
        self._busy += 1
        self._runs.add(run)
        self._shared.ledger.begin(run)
        run.held = crashes(received) > 0
        if run.held and is_suspect(received, self._options.crash_limit):
            self._shared.quarantine.enter(run)
        name = f"task:{self.queue.full}:{run.envelope.id}"
        self._shared.supervisor.launch(self._work, run, name=name, loop=self._place.deadlines.loop)

    async def _work(self, run: Run) -> None:
        try:
            if not await self._worker.work(run):
                self._refuse(*run.former, run.received)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and self._torn_down():
                raise
            log.exception("task %s on %s was not settled", run.envelope.id, self.queue.channel)
            await self._shared.clock.sleep(UNSETTLED_PAUSE)  # it may come straight back
            await self._shared.settler.settle(run, GiveBack("it could not be settled"))
        finally:
            run.release()
            self._runs.discard(run)
            if not self._runs:
                self._finished.set()

    def _torn_down(self) -> bool:
        """Whether everything here is being cancelled, not a handler alone."""
        return self._keeper is not None and (self._keeper.done() or self._keeper.cancelling() > 0)

    def _release(self) -> None:
        self._busy -= 1
        self._shared.quarantine.worked()
        if not self._taking or self._prefetch < self._options.concurrency:
            self._turn.set()

    # --- pausing and giving back ---

    async def _keep(self) -> None:
        """Pause the consumer while nothing may be taken here, resume it when something may."""
        while True:
            content = self._taking and self._prefetch == self._options.concurrency
            await set_within(self._turn, None if content else IDLE_POLL)  # idle() is asked
            self._turn.clear()
            try:
                await self._balance()
            except Exception:
                log.exception("cannot pause or resume %s; trying again", self.queue)
                self._turn.set()
                await self._shared.clock.sleep(OPEN_PAUSE)

    async def _balance(self) -> None:
        async with self._balancing:
            if (consumer := self._consumer) is None:
                return
            if self._taking and (self._refused or self._stopping):
                self._taking = False
                await consumer.pause()  # before they are given back, or they come straight back
            await self._return_refused()
            self._met_suspect = self._met_suspect and self._shared.quarantine.opens_in > 0
            free = not self._kept and not self._met_suspect and self._may_take()
            prefetch = self._options.concurrency - sum(run.settled_early for run in self._runs)
            if free and (not self._taking or prefetch > self._prefetch):
                if self._taking:  # one consumer anew, not a further one for each slot
                    await consumer.pause()
                self._taking, self._prefetch = True, prefetch
                await consumer.resume(prefetch)

    async def _return_refused(self) -> None:
        """Give back what was refused, except what cannot be and is kept or taken."""
        kept, self._kept = self._kept, []
        for received in kept:
            if not self._may_take() or received.lost:
                self._refused.append(received)
            elif self._shared.quarantine.bars(received, self._options.crash_limit):
                self._kept.append(received)
            else:
                self._on_delivery(received)
        # Not taken, even where that is possible by now: lost meanwhile, it may run elsewhere.
        while self._refused:
            # One that is taken away by a stop may be counted for it: there is no time for more.
            limit = None if self._stopping else self._options.crash_limit
            if not await self._shared.settler.give_back_unbegun(self._refused[0], limit):
                self._kept.append(self._refused[0])
            del self._refused[0]

    def _do(self, chore: Coroutine[Any, Any, None], envelope: Envelope) -> asyncio.Task[None]:
        task = self._shared.supervisor.spawn(chore, name=f"settle:{self.queue}:{envelope.id}")
        self._chores.add(task)
        task.add_done_callback(self._chore_ended)
        return task

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        self._finished.set()
