"""What this instance is running and what it remembers having finished.

The broker delivers a task again when it did not hear of its outcome. This instance may know the
outcome, because it was only the acknowledgement that was lost.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from cluster_kit.event_queue.run import CopyKey, Key, Run, copy_key, task_key

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.message import Envelope
    from cluster_kit.ports import Received

T = TypeVar("T")

REMEMBERED = 10_000
"""How many finished tasks an instance remembers at least."""

FORGOTTEN_AT_ONCE = 1_000
"""How many of the oldest it forgets together, which is cheaper than one by one."""

REMEMBERED_SECONDS = 300.0
"""How long a finished id suppresses another copy; repeats by a publisher come within seconds."""


class Ledger:
    """Runs in progress and lately finished tasks of all queues of one instance."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_copy: dict[CopyKey, Run] = {}
        self._by_id: dict[Key, Run] = {}
        self._settled: dict[CopyKey, bool] = {}  # both with the oldest first
        self._done: dict[Key, float] = {}

    def begin(self, run: Run) -> None:
        """Note that `run` started."""
        self._by_id[run.key] = run
        if run.copy_id:
            self._by_copy[run.copy_key] = run

    def settling(self, run: Run) -> None:
        """Note that the handler ended: a new copy of the same id may be run from now on."""
        if self._by_id.get(run.key) is run:
            del self._by_id[run.key]

    def end(self, run: Run) -> None:
        """Note that `run` is settled or given up."""
        self.settling(run)
        if self._by_copy.get(run.copy_key) is run:
            del self._by_copy[run.copy_key]

    def adopt(self, run: Run, received: Received) -> None:
        """Let `run` settle this delivery too; a fresh copy of it takes the place of its own."""
        run.adopt(received)
        if run.renewed and received.copy_id not in {"", run.copy_id}:
            if self._by_copy.get(run.copy_key) is run:
                del self._by_copy[run.copy_key]
            run.recopy(received.copy_id)
            self._by_copy[run.copy_key] = run

    def is_new(self, received: Received) -> bool:
        """Whether this instance neither runs nor remembers anything of it: the usual case."""
        envelope = received.envelope
        if (key := task_key(envelope)) in self._by_id or key in self._done:
            return False
        copy = copy_key(envelope, received.copy_id)
        return copy not in self._by_copy and copy not in self._settled

    def same_copy(self, received: Received) -> Run | None:
        """Return the run of this very copy, if one is in progress or being settled."""
        return self._by_copy.get(copy_key(received.envelope, received.copy_id))

    def same_id(self, envelope: Envelope) -> Run | None:
        """Return the run of a copy with this id whose handler has not ended."""
        return self._by_id.get(task_key(envelope))

    def done(self, envelope: Envelope) -> None:
        """Remember that the task with this id is finished."""
        key = task_key(envelope)
        self._done.pop(key, None)  # one that is there already is the newest now
        self._done[key] = self._clock.monotonic()
        if len(self._done) >= REMEMBERED + FORGOTTEN_AT_ONCE:
            _forget_oldest(self._done)

    def is_done(self, envelope: Envelope) -> bool:
        """Whether the task with this id finished here within the last five minutes."""
        at = self._done.get(task_key(envelope))
        return at is not None and self._clock.monotonic() - at <= REMEMBERED_SECONDS

    def settled(self, received: Received, *, ack_lost: bool) -> None:
        """Remember that this copy needs nothing more, or nothing but its acknowledgement.

        One that was sent may still be lost on its way; that only shows when the copy comes again.
        """
        if received.copy_id:
            key = copy_key(received.envelope, received.copy_id)
            self._settled.pop(key, None)  # as in `done`
            self._settled[key] = ack_lost
            if len(self._settled) >= REMEMBERED + FORGOTTEN_AT_ONCE:
                _forget_oldest(self._settled)

    def acked(self, received: Received) -> None:
        """Note that the acknowledgement of a settled copy was sent once more."""
        key = copy_key(received.envelope, received.copy_id)
        if key in self._settled:
            self._settled[key] = False

    def only_ack_missing(self, received: Received) -> bool:
        """Whether this copy is settled but for the acknowledgement.

        Where the acknowledgement was sent, only a redelivery can be this copy: other publishers
        may use one message id for many messages.
        """
        ack_lost = self._settled.get(copy_key(received.envelope, received.copy_id))
        return ack_lost is not None and (ack_lost or received.redelivered)


def _forget_oldest(remembered: dict[T, Any]) -> None:
    for key in list(islice(remembered, FORGOTTEN_AT_ONCE)):
        del remembered[key]
