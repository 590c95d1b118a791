"""The broker of this process: a state machine over its queues. It never waits."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.message import DeadReason, Death
from cluster_kit.names import new_id
from cluster_kit_memory.schedule import Schedule, Timer
from cluster_kit_memory.store import State, ignore
from cluster_kit_memory.work_queue import Handout, Stored, Taker, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cluster_kit.clock import Clock
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit_memory.store import Contents, Done, Store


class Hub:
    """All queues of one name in one process.

    A stored copy is at any time in exactly one place: on its way into the store, waiting for its
    delay, in line, handed out, or dead. Every move is told to the store before anybody outside
    hears of it.

    Args:
        clock: tells when delays and ttls end.
        store: keeps what happens.
        redelivery_limit: redeliveries after which a copy is dead as `crashed`.
    """

    def __init__(self, *, clock: Clock, store: Store, redelivery_limit: int) -> None:
        self.timer = Timer(clock, self._seconds_left, self.run_due)
        self._clock = clock
        self._store = store
        self._redelivery_limit = redelivery_limit
        self._queues: dict[str, WorkQueue] = {}
        self._numbers: Iterator[int] = itertools.count(1)
        self._delayed: Schedule[Stored] = Schedule()  # by monotonic time
        self._expiring: Schedule[Stored] = Schedule()  # by wall time; only what is in line

    # --- what came from the file -----------------------------------------------------------------

    def load(self, contents: Contents) -> None:
        """Take over what a file holds. What had been handed out counts as redelivered."""
        for name in contents.queues:
            self._queue(name).names.add(name)
        last = max((max(row.id, row.position) for row in contents.rows), default=0)
        self._numbers = itertools.count(last + 1)
        for row in contents.rows:
            queue = self._queue(row.envelope.queue)
            stored = Stored(
                row.id, queue, row.envelope, row.copy_id, row.position, row.redeliveries
            )
            match row.state:
                case State.WAITING:
                    wait = max(row.due - self._clock.wall(), 0.0)
                    self._delayed.add(stored.id, self._clock.monotonic() + wait, stored)
                case State.DELIVERED:
                    self._put_back(stored, counts=True)
                case State.DEAD:
                    queue.dead[stored.id] = stored
                case State.READY:
                    self._append(stored)
        self.run_due()

    # --- queues ----------------------------------------------------------------------------------

    def open_queue(self, name: QueueName) -> WorkQueue:
        """Return the queue called `name`; it exists from now on."""
        queue = self._queue(name)
        if name not in queue.names:
            queue.names.add(name)
            self._store.name_queue(name)
        return queue

    def find_queue(self, name: QueueName) -> WorkQueue | None:
        """Return the queue called `name`, or None when nobody used it yet."""
        return self._queues.get(name.full)

    def names(self) -> list[QueueName]:
        """Return every name by which a queue was addressed."""
        return [name for queue in self._queues.values() for name in queue.names]

    def purge(self, queue: WorkQueue, done: Done) -> int:
        """Drop what is in line and return how many that were."""
        dropped = queue.clear()
        for stored in dropped:
            self._expiring.discard(stored.id)
        self._store.remove([stored.id for stored in dropped], done)
        return len(dropped)

    def unfinished(self) -> int:
        """Count the tasks that are not dead, wherever they are, except in takers' hands."""
        return len(self._delayed) + sum(queue.ready for queue in self._queues.values())

    def dead(self) -> int:
        """Count the dead letters."""
        return sum(len(queue.dead) for queue in self._queues.values())

    def _queue(self, name: QueueName) -> WorkQueue:
        return self._queues.setdefault(name.full, WorkQueue())

    # --- in --------------------------------------------------------------------------------------

    def put(self, envelope: Envelope, delay: float, done: Done) -> None:
        """Store a task, call `done`, and let it in line after `delay` seconds."""
        stored = self._new(envelope)
        if delay > 0:
            begins, due = self._clock.monotonic() + delay, self._clock.wall() + delay
            entry = partial(self._put_delayed, stored, begins)
            self._store.add(stored, State.WAITING, due, partial(_after, entry, done))
        else:
            entry = partial(self._put_ready, stored)
            self._store.add(stored, State.READY, 0.0, partial(_after, entry, done))

    def bury(self, envelope: Envelope, done: Done) -> None:
        """Store a dead letter and call `done`."""
        stored = self._new(envelope)
        entry = partial(stored.queue.dead.__setitem__, stored.id, stored)
        self._store.add(stored, State.DEAD, 0.0, partial(_after, entry, done))

    def _new(self, envelope: Envelope) -> Stored:
        queue = self.open_queue(envelope.queue)
        number = next(self._numbers)
        return Stored(number, queue, own_copy(envelope, envelope.queue), new_id(), number)

    def _put_delayed(self, stored: Stored, begins: float) -> None:
        self._delayed.add(stored.id, begins, stored)
        self.timer.arm()

    def _put_ready(self, stored: Stored) -> None:
        self._append(stored)
        self._dispatch(stored.queue)
        self.timer.arm()

    def _append(self, stored: Stored) -> None:
        stored.queue.append(stored)
        self._watch_expiry(stored)

    def _watch_expiry(self, stored: Stored) -> None:
        if stored.envelope.expires_at is not None:
            self._expiring.add(stored.id, stored.envelope.expires_at, stored)

    # --- out -------------------------------------------------------------------------------------

    def start(self, taker: Taker) -> None:
        """Give `taker` its share of the queue. Idempotent."""
        if not taker.taking:
            taker.taking = True
            taker.queue.add_taker(taker)
        self._dispatch(taker.queue)

    def pause(self, taker: Taker) -> None:
        """Give `taker` nothing more; what it has not seen yet goes back. Idempotent."""
        if taker.taking:
            taker.taking = False
            taker.queue.remove_taker(taker)
            self._take_back([given for given in taker.unsettled.values() if not given.handed])

    def drop(self, taker: Taker) -> None:
        """End `taker`: what it has not settled goes back as redelivered. Idempotent."""
        self.pause(taker)
        self._take_back(list(taker.unsettled.values()))

    def ack(self, given: Handout, done: Done) -> bool:
        """Settle a delivery; the copy is gone. False when it is not the taker's any more."""
        if not self._release(given):
            return False
        self._store.remove([given.stored.id], done)
        self._dispatch(given.stored.queue)
        return True

    def give_back(self, given: Handout, done: Done) -> bool:
        """Put a delivery back in line without counting it. False as with `ack`."""
        if not self._release(given):
            return False
        given.stored.returned = True
        self._put_back(given.stored, counts=False, done=done)
        self._dispatch(given.stored.queue)
        self.timer.arm()
        return True

    def _dispatch(self, queue: WorkQueue) -> None:
        while queue.ready and (taker := queue.next_taker()) is not None:
            stored = self._take(queue)
            if stored is None:
                return
            given = taker.unsettled[stored.id] = Handout(stored, taker)
            # Marked before it is handed over: a task that kills this process at once still counts.
            self._store.change(stored, State.DELIVERED, partial(_hand_over, given))

    def _take(self, queue: WorkQueue) -> Stored | None:
        while (stored := queue.take()) is not None:
            self._expiring.discard(stored.id)
            expires_at = stored.envelope.expires_at
            if expires_at is None or expires_at > self._clock.wall():
                return stored
            self._die(stored, DeadReason.EXPIRED)
        return None

    @staticmethod
    def _release(given: Handout) -> bool:
        if not given.live:
            return False
        given.live = False
        del given.taker.unsettled[given.stored.id]
        return True

    def _take_back(self, handouts: Iterable[Handout]) -> None:
        queues: set[WorkQueue] = set()
        for given in handouts:
            self._release(given)
            self._put_back(given.stored, counts=given.handed)
            queues.add(given.stored.queue)
        for queue in queues:
            self._dispatch(queue)
        self.timer.arm()

    def _put_back(self, stored: Stored, *, counts: bool, done: Done = ignore) -> None:
        stored.redeliveries += counts
        if stored.redeliveries > self._redelivery_limit:
            text = f"delivered {stored.redeliveries} times without any outcome"
            self._die(stored, DeadReason.CRASHED, text, done)
            return
        stored.queue.put_back(stored)
        self._watch_expiry(stored)
        self._store.change(stored, State.READY, done)

    # --- dead ------------------------------------------------------------------------------------

    def remove_dead(self, stored: Stored, done: Done) -> None:
        """Take a dead letter out for good."""
        del stored.queue.dead[stored.id]
        self._store.remove([stored.id], done)

    def _die(self, stored: Stored, reason: DeadReason, text: str = "", done: Done = ignore) -> None:
        death = Death(reason=reason, error_text=text, died_at=self._clock.wall())
        stored.envelope = replace(stored.envelope, death=death)
        stored.position = next(self._numbers)
        stored.queue.dead[stored.id] = stored
        self._store.change(stored, State.DEAD, done)

    # --- time ------------------------------------------------------------------------------------

    def run_due(self) -> None:
        """Let in line what has waited long enough, and bury what has expired."""
        queues: dict[WorkQueue, None] = {}
        for stored in self._delayed.pop_due(self._clock.monotonic()):
            stored.position = next(self._numbers)
            self._store.change(stored, State.READY, ignore)
            self._append(stored)
            queues[stored.queue] = None
        for stored in self._expiring.pop_due(self._clock.wall()):
            stored.queue.discard(stored)
            self._die(stored, DeadReason.EXPIRED)
        for queue in queues:
            self._dispatch(queue)

    def _seconds_left(self) -> float | None:
        begins, expires = self._delayed.next(), self._expiring.next()
        left: list[float] = []
        if begins is not None:
            left.append(begins - self._clock.monotonic())
        if expires is not None:
            left.append(expires - self._clock.wall())
        return min(left, default=None)


def own_copy(envelope: Envelope, queue: QueueName) -> Envelope:
    """Return `envelope`, addressed to `queue`, with headers nobody else can change."""
    return replace(envelope, queue=queue, headers=copy.deepcopy(dict(envelope.headers)))


def _after(entry: Callable[[], None], done: Done, error: Exception | None) -> None:
    if error is None:
        entry()
    done(error)


def _hand_over(given: Handout, _error: Exception | None) -> None:
    if given.live:
        given.handed = True
        given.taker.receive(given)
