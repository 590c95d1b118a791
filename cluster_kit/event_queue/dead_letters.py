"""The dead letters of one channel: look, replay, discard."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from cluster_kit.checks import whole_number
from cluster_kit.clock import MAX_WAIT, utc
from cluster_kit.errors import ConfigurationError, DecodeError
from cluster_kit.message import DeadLetter, DeadReason, Death

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.codec import Codec
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import DeadEntry, EventQueueAdapter

LOWEST_RATE = 1 / MAX_WAIT
"""Fewest replays a second: one in 30 days."""


class DeadLetters:
    """The dead letters of one channel. Got from `EventQueue.dead_letters`.

    ``async for letter in dead_letters:`` goes through all there are now, oldest first, one in
    memory at a time, and leaves them where they are; `browse` is for a few. Until it ends, what
    it has shown is held: nobody else sees it, `replay` and `discard` neither. Who leaves the loop
    early and goes on at once enters ``contextlib.aclosing(aiter(dead_letters))`` around it.

    A letter that somebody else is looking at in this moment is not seen. It may be kept over a
    stop and a start of the cluster. Every method raises `NotStartedError` in between, and
    `TransportError` when the broker cannot be asked.
    """

    def __init__(
        self,
        queue: QueueName,
        adapter: Callable[[], EventQueueAdapter],
        codec: Codec,
        clock: Clock,
        *,
        publish_timeout: float,
    ) -> None:
        adapter()  # tells at once when there is none
        self._queue = queue
        self._adapter = adapter
        self._codec = codec
        self._clock = clock
        self._timeout = publish_timeout

    async def count(self) -> int:
        """Return how many there are, without those a reader holds at this moment."""
        depth = await self._adapter().depth(self._queue)
        return 0 if depth is None else depth.dead

    async def __aiter__(self) -> AsyncGenerator[DeadLetter]:
        """Go through them; see above."""
        async with self._adapter().read_dead(self._queue) as entries:
            async for entry in entries:
                yield self._letter(entry.envelope)

    async def browse(self, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest `limit` dead letters and leave them where they are."""
        whole_number("limit", limit)
        letters: list[DeadLetter] = []
        if limit == 0:
            return letters
        async with aclosing(aiter(self)) as found:
            async for letter in found:
                letters.append(letter)
                if len(letters) == limit:
                    break
        return letters

    async def replay(self, ids: Iterable[str] | None = None, *, rate: float | None = None) -> int:
        """Publish dead letters as tasks again and return how many.

        The id stays, attempts start anew and a ttl is lifted. Each is confirmed by the broker
        before it leaves the dead letters: a crash between the two repeats a task, it loses none.

        Args:
            ids: which; None for all that have died by now. Of two letters with one id, the oldest.
            rate: at most so many a second; None for no limit.

        Raises:
            ConfigurationError: `ids` is no list of strings, or `rate` no number above 0.
        """
        wanted = _wanted(ids)
        pause = 0.0 if rate is None else 1 / _checked_rate(rate)
        replayed = 0
        async with self._adapter().read_dead(self._queue) as entries:
            async for entry in _chosen(entries, wanted, self._clock):
                if pause and replayed:
                    await self._clock.sleep(pause)
                fresh = dataclasses.replace(
                    entry.envelope, attempt=1, expires_at=None, crashes=0, death=None
                )
                await self._adapter().publish(fresh, timeout=self._timeout)
                await entry.remove()
                replayed += 1
        return replayed

    async def discard(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters for good and return how many; `ids` as for `replay`."""
        wanted = _wanted(ids)
        discarded = 0
        async with self._adapter().read_dead(self._queue) as entries:
            async for entry in _chosen(entries, wanted, self._clock):
                await entry.remove()
                discarded += 1
        return discarded

    def _letter(self, envelope: Envelope) -> DeadLetter:
        death = envelope.death or Death(reason=DeadReason.FAILED)
        # Only a handler's own end counts as an attempt; the others died before or outside a run.
        ran = death.reason in (DeadReason.FAILED, DeadReason.REJECTED)
        try:
            payload = self._codec.decode(envelope.body)
        except DecodeError:
            payload = None
        return DeadLetter(
            id=envelope.id,
            channel=self._queue.channel,
            reason=death.reason,
            error_type=death.error_type,
            error_text=death.error_text,
            attempts=envelope.attempt if ran else envelope.attempt - 1,
            payload=payload,
            body=envelope.body,
            headers=envelope.headers,
            published_at=None if envelope.published_at is None else utc(envelope.published_at),
            died_at=None if death.died_at is None else utc(death.died_at),
            instance_id=death.instance_id,
        )


async def _chosen(
    entries: AsyncIterator[DeadEntry], wanted: frozenset[str] | None, clock: Clock
) -> AsyncIterator[DeadEntry]:
    """Pass on the wanted entries, and look no further than the last of them.

    All that is wanted without ids is what has died before now: while some are held by another
    reader, later ones come instead, which nobody has seen.
    """
    if wanted is None:
        earlier = _Earlier(clock)
        async for entry in entries:
            if earlier.than(entry.envelope):
                yield entry
        return
    missing = set(wanted)
    if not missing:
        return
    async for entry in entries:
        if entry.envelope.id in missing:
            missing.discard(entry.envelope.id)
            yield entry
            if not missing:
                return


class _Earlier:
    """Tells what died before this was made from what dies meanwhile.

    A time of death still to come is that of an instance whose clock is ahead, and tells nothing:
    then each id counts as earlier once. One that is past when it is read, though it was still to
    come when this was made, may be either, and waits for another call.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._made = clock, clock.wall()
        self._undated: set[str] = set()

    def than(self, letter: Envelope) -> bool:
        at = None if letter.death is None else letter.death.died_at
        if at is None or at <= self._made:
            return True
        if at <= self._clock.wall() or letter.id in self._undated:
            return False
        self._undated.add(letter.id)
        return True


def _wanted(ids: object) -> frozenset[str] | None:
    if ids is None:
        return None
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        kind = type(ids).__name__
        raise ConfigurationError(f"ids is a list of message ids, not one {kind}")
    wanted = list(cast("Iterable[object]", ids))
    for id_ in wanted:
        if not isinstance(id_, str):
            raise ConfigurationError(f"message ids are strings, not {type(id_).__name__}")
    return frozenset(cast("list[str]", wanted))


def _checked_rate(rate: object) -> float:
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not LOWEST_RATE <= cast("float", rate) < math.inf:
        raise ConfigurationError(f"rate must be a number above 0 a second, not {rate!r}")
    return cast("float", rate)
