"""What this instance is running and what it remembers having finished.

The broker delivers a task again when it did not hear of its outcome. This instance may know the
outcome, because it was only the acknowledgement that was lost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.event_queue.run import Run
    from cluster_kit.message import Envelope
    from cluster_kit.ports import Received

REMEMBERED = 10_000
"""How many finished tasks an instance remembers."""

REMEMBERED_SECONDS = 300.0
"""How long a finished id suppresses another copy; repeats by a publisher come within seconds."""

Key = tuple[str, str]
CopyKey = tuple[str, str, str]


class Ledger:
    """Runs in progress and lately finished tasks of all queues of one instance."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_copy: dict[CopyKey, Run] = {}
        self._by_id: dict[Key, Run] = {}
        self._settled: OrderedDict[CopyKey, bool] = OrderedDict()
        self._done: OrderedDict[Key, float] = OrderedDict()

    def begin(self, run: Run) -> None:
        """Note that `run` started."""
        self._by_id[_id(run.envelope)] = run
        if run.copy_id:
            self._by_copy[_copy(run.envelope, run.copy_id)] = run

    def settling(self, run: Run) -> None:
        """Note that the handler ended: a new copy of the same id may be run from now on."""
        if self._by_id.get(_id(run.envelope)) is run:
            del self._by_id[_id(run.envelope)]

    def end(self, run: Run) -> None:
        """Note that `run` is settled or given up."""
        self.settling(run)
        key = _copy(run.envelope, run.copy_id)
        if self._by_copy.get(key) is run:
            del self._by_copy[key]

    def same_copy(self, received: Received) -> Run | None:
        """Return the run of this very copy, if one is in progress or being settled."""
        return self._by_copy.get(_copy(received.envelope, received.copy_id))

    def same_id(self, envelope: Envelope) -> Run | None:
        """Return the run of a copy with this id whose handler has not ended."""
        return self._by_id.get(_id(envelope))

    def done(self, envelope: Envelope) -> None:
        """Remember that the task with this id is finished."""
        self._done[_id(envelope)] = self._clock.monotonic()
        self._done.move_to_end(_id(envelope))
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def is_done(self, envelope: Envelope) -> bool:
        """Whether the task with this id finished here within the last five minutes."""
        at = self._done.get(_id(envelope))
        return at is not None and self._clock.monotonic() - at <= REMEMBERED_SECONDS

    def settled(self, run: Run, *, ack_lost: bool) -> None:
        """Remember that this copy needs nothing more, or nothing but its acknowledgement.

        One that was sent may still be lost on its way; that only shows when the copy comes again.
        """
        if run.copy_id:
            self._settled[_copy(run.envelope, run.copy_id)] = ack_lost
            if len(self._settled) > REMEMBERED:
                self._settled.popitem(last=False)

    def acked(self, received: Received) -> None:
        """Note that the acknowledgement of a settled copy was sent once more."""
        key = _copy(received.envelope, received.copy_id)
        if key in self._settled:
            self._settled[key] = False

    def only_ack_missing(self, received: Received) -> bool:
        """Whether this copy is settled but for the acknowledgement.

        Where the acknowledgement was sent, only a redelivery can be this copy: other publishers
        may use one message id for many messages.
        """
        ack_lost = self._settled.get(_copy(received.envelope, received.copy_id))
        return ack_lost is not None and (ack_lost or received.redelivered)


def _id(envelope: Envelope) -> Key:
    return envelope.queue.full, envelope.id


def _copy(envelope: Envelope, copy_id: str) -> CopyKey:
    # With the id, because other publishers may use one message id for many tasks.
    return envelope.queue.full, copy_id, envelope.id
