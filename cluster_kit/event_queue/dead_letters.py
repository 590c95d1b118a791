"""The dead letters of one channel: look, replay, discard."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from cluster_kit.checks import whole_number
from cluster_kit.clock import utc
from cluster_kit.errors import ConfigurationError, DecodeError
from cluster_kit.message import DeadLetter, DeadReason, Death

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.codec import Codec
    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName
    from cluster_kit.ports import DeadEntry, EventQueueAdapter


class DeadLetters:
    """The dead letters of one channel. Got from `EventQueue.dead_letters`.

    A letter that somebody else is looking at in this moment is not seen.
    Every method raises `TransportError` when the broker cannot be asked.
    """

    def __init__(
        self,
        queue: QueueName,
        adapter: EventQueueAdapter,
        codec: Codec,
        clock: Clock,
        *,
        publish_timeout: float,
    ) -> None:
        self._queue = queue
        self._adapter = adapter
        self._codec = codec
        self._clock = clock
        self._timeout = publish_timeout

    async def count(self) -> int:
        """Return how many there are."""
        depth = await self._adapter.depth(self._queue)
        return 0 if depth is None else depth.dead

    async def browse(self, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest `limit` dead letters and leave them where they are."""
        whole_number("limit", limit)
        letters: list[DeadLetter] = []
        if limit == 0:
            return letters
        async with self._adapter.read_dead(self._queue) as entries:
            async for entry in entries:
                letters.append(self._letter(entry.envelope))
                if len(letters) == limit:
                    break
        return letters

    async def replay(self, ids: Iterable[str] | None = None, *, rate: float | None = None) -> int:
        """Publish dead letters as tasks again and return how many.

        The id stays, attempts start anew and a ttl is lifted. Each is confirmed by the broker
        before it leaves the dead letters: a crash between the two repeats a task, it loses none.

        Args:
            ids: which; None for all there are now. Of two letters with one id, the oldest.
            rate: at most so many a second; None for no limit.
        """
        wanted = _wanted(ids)
        if rate is not None and not rate > 0:
            raise ConfigurationError(f"rate must be above 0 a second, not {rate!r}")
        replayed = 0
        async with self._adapter.read_dead(self._queue) as entries:
            async for entry in _chosen(entries, wanted):
                if rate is not None and replayed:
                    await self._clock.sleep(1 / rate)
                fresh = dataclasses.replace(
                    entry.envelope, attempt=1, expires_at=None, crashes=0, death=None
                )
                await self._adapter.publish(fresh, timeout=self._timeout)
                await entry.remove()
                replayed += 1
        return replayed

    async def discard(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters for good and return how many; `ids` as for `replay`."""
        wanted = _wanted(ids)
        discarded = 0
        async with self._adapter.read_dead(self._queue) as entries:
            async for entry in _chosen(entries, wanted):
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
    entries: AsyncIterator[DeadEntry], wanted: frozenset[str] | None
) -> AsyncIterator[DeadEntry]:
    """Pass on the wanted entries, and look no further than the last of them."""
    missing = None if wanted is None else set(wanted)
    if missing is not None and not missing:
        return
    async for entry in entries:
        if missing is None:
            yield entry
        elif entry.envelope.id in missing:
            missing.discard(entry.envelope.id)
            yield entry
            if not missing:
                return


def _wanted(ids: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(ids, str):
        raise ConfigurationError("ids is a list of message ids, not a string")
    return None if ids is None else frozenset(ids)
