"""What an instance has in hand: its consumers, their deliveries, and readers of dead letters."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectionLost
from cluster_kit_memory.hub import own_copy
from cluster_kit_memory.work_queue import Taker

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import Received
    from cluster_kit_memory.hub import Hub
    from cluster_kit_memory.store import Done
    from cluster_kit_memory.work_queue import Handout, Stored, WorkQueue


async def stored(start: Callable[[Done], object]) -> Exception | None:
    """Call `start` with a `done`, wait until that is called, and return the error it was given."""
    outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    start(partial(_settle, outcome))
    return await outcome


def _settle(outcome: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not outcome.done():
        outcome.set_result(error)


class MemoryReceived:
    """One delivery."""

    give_back_counts = False

    def __init__(self, hub: Hub, given: Handout) -> None:
        copy = given.stored
        # Addressed as this consumer knows the queue: a shared name may lead to it as well.
        self.envelope: Envelope = own_copy(copy.envelope, given.taker.name)
        self.copy_id: str = copy.copy_id
        self.redeliveries: int = copy.redeliveries
        self.redelivered: bool = copy.returned or copy.redeliveries > 0
        self._hub = hub
        self._given = given

    @property
    def lost(self) -> bool:
        """Whether it was settled or taken back."""
        return not self._given.live

    async def ack(self) -> None:
        """Settle: the task is gone from the hub at once, and from its file on return.

        Raises:
            ConnectionLost: it was settled before, or taken back.
        """
        await self._settle(self._hub.ack)

    async def give_back(self) -> None:
        """Settle: the task is first in line again. Raises as `ack`."""
        await self._settle(self._hub.give_back)

    async def _settle(self, settle: Callable[[Handout, Done], bool]) -> None:
        if not self._given.live:
            raise ConnectionLost(f"the delivery of {self.envelope.id} is not ours any more")
        await stored(partial(settle, self._given))


class MemoryConsumer:
    """A running consumer. `cut` and `mend` are what its instance's link does to it.

    Attributes:
        closed: it was stopped for good.
    """

    def __init__(
        self,
        hub: Hub,
        taker: Callable[[Callable[[Handout], None]], Taker],
        on_delivery: Callable[[Received], None],
        *,
        paused: bool,
    ) -> None:
        self._hub = hub
        self._on_delivery = on_delivery
        self._taker = taker(self._receive)
        self.closed = False
        self._wanted = not paused
        self._linked = True
        self._apply()

    @property
    def queue(self) -> QueueName:
        """The queue it takes from."""
        return self._taker.name

    @property
    def taking(self) -> bool:
        """Whether it is neither paused nor cut off nor closed."""
        return self._taker.taking

    def _receive(self, given: Handout) -> None:
        self._on_delivery(MemoryReceived(self._hub, given))

    def _apply(self) -> None:
        if self._wanted and self._linked and not self.closed:
            self._hub.start(self._taker)
        else:
            self._hub.pause(self._taker)

    async def pause(self) -> None:
        """Take nothing more; nothing is handed over from this call on."""
        self._wanted = False
        self._apply()

    async def resume(self, prefetch: int | None = None) -> None:
        """Take again, at most `prefetch` at a time."""
        self._taker.prefetch = prefetch or self._taker.prefetch
        self._wanted = True
        self._apply()

    async def close(self) -> None:
        """Stop for good; what was not settled goes back as redelivered."""
        self.closed = True
        self._hub.drop(self._taker)

    def cut(self) -> None:
        """Lose everything in hand; take nothing until `mend`."""
        self._linked = False
        self._hub.drop(self._taker)

    def mend(self) -> None:
        """Take again, unless paused."""
        self._linked = True
        self._apply()


class MemoryDeadEntry:
    """A dead letter held by a reader."""

    def __init__(self, reader: DeadReader, letter: Stored) -> None:
        self._reader = reader
        self._letter = letter

    @property
    def envelope(self) -> Envelope:
        """The task, with `death` set. A copy of its own."""
        return own_copy(self._letter.envelope, self._reader.name)

    async def remove(self) -> None:
        """Take it out of the dead letters for good.

        Raises:
            ConnectionLost: it was removed before, or its reader has ended.
        """
        await self._reader.remove(self._letter)


class DeadReader:
    """Hands out the dead letters that are there at its making, oldest first.

    One that another reader holds is passed over. Dead letters never move: to hold one is to mark
    it, to let go is to take the mark away.
    """

    def __init__(self, hub: Hub, name: QueueName) -> None:
        self.name = name
        self._hub = hub
        self._queue: WorkQueue | None = hub.find_queue(name)
        self._ahead = iter(tuple(self._queue.dead.values()) if self._queue else ())
        self._held: set[int] = set()
        self._open = True

    def __aiter__(self) -> DeadReader:
        return self

    async def __anext__(self) -> MemoryDeadEntry:
        for letter in self._ahead if self._open else ():
            if letter.id in letter.queue.dead and letter.id not in letter.queue.held:
                letter.queue.held.add(letter.id)
                self._held.add(letter.id)
                return MemoryDeadEntry(self, letter)
        raise StopAsyncIteration

    async def remove(self, letter: Stored) -> None:
        """Take out a letter this reader holds."""
        if letter.id not in self._held:
            raise ConnectionLost(f"dead letter {letter.envelope.id} is not held any more")
        self._held.discard(letter.id)
        letter.queue.held.discard(letter.id)
        await stored(partial(self._hub.remove_dead, letter))

    def close(self) -> None:
        """Let go of what is held. Idempotent."""
        self._open = False
        if self._queue is not None:
            self._queue.held -= self._held
        self._held.clear()
