"""How instances tell each other what they invalidated."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Protocol

from cluster_kit.cache.changes import Change, Unsent, after, from_message, quiet_before
from cluster_kit.errors import ClusterKitError, ConnectError, MessageTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.broadcast import Event
    from cluster_kit.pubsub import PubSubManager

log = logging.getLogger(__name__)

RECOVERY = 2.5
"""Seconds after the link is back within which missed messages are told, see `on_gap`."""

BEATS = 3
"""Empty changes sent after the last one, each after twice the pause of the one before."""

MAX_SENDERS = 10_000
"""Instances whose broadcasts are known to arrive."""


class Hearing(Protocol):
    """The cache, as its backplane sees it."""

    def heard(self, change: Change) -> None:
        """Another instance has invalidated something."""
        ...

    def missed(self, reason: str) -> None:
        """Others may have invalidated anything."""
        ...


class Backplane:
    """Carries the changes of one cache to other instances, and theirs to it.

    It is live as long as the link to the broker is known to work. What could not be told is kept
    and told when it is live again. Broadcasts are numbered, so whoever missed one learns of it
    from the next of that instance; when none follows, a few empty ones do, the beats.

    Args:
        pubsub: of the caches.
        cache: its name, for the log.
        channel: of this cache.
        monotonic: the time.
        beat: seconds without a change after which the first beat is sent.

    Attributes:
        live: whether invalidations of others arrive, as far as known.
        unsent: what others are still to be told.
        error: why they could not be told the last time; None when they were, or without a link.
    """

    def __init__(
        self,
        pubsub: PubSubManager,
        cache: str,
        channel: str,
        monotonic: Callable[[], float],
        beat: float,
    ) -> None:
        self._pubsub = pubsub
        self._cache = cache
        self._channel = channel
        self._monotonic = monotonic
        self._hearing: Hearing | None = None
        self._linked_since: float | None = None
        self._link: float | None = None  # that of the last word of what was missed
        self._away = False  # it was lost since then
        self._beat = beat
        self._told_at = -inf
        self._beats = BEATS  # sent since then
        self._senders: set[str] = set()
        self._attached_at = 0.0
        self._attached = False
        self._doubted = ""  # why nothing was heard, since the start
        self._said = ""  # why nothing could be told, the last time
        self.live: bool = False
        self.unsent: Unsent = Unsent()
        self.error: ClusterKitError | None = None

    async def open(self, hearing: Hearing, patience: float) -> None:
        """Begin to hear, as soon as the broker lets us: `attach` does where this gave up.

        Args:
            hearing: the cache.
            patience: seconds to wait for the broker.

        Raises:
            TopologyError: as `PubSubManager.subscribe`.
        """
        self._hearing = hearing
        try:
            async with asyncio.timeout(patience):
                await self.attach()
        except TimeoutError:
            self._doubt("the broker does not answer")
        self.look()

    async def attach(self) -> None:
        """Begin to hear, unless that is done; without a connection it is to be tried again."""
        if self._attached or self._hearing is None:
            return
        try:
            await self._pubsub.subscribe(self._channel, self._receive, on_gap=self._gap)
        except ConnectError as exc:
            self._doubt(exc)
            return
        self._attached, self._attached_at = True, self._monotonic()
        self._senders.clear()
        if self._doubted:  # what was held meanwhile may have been invalidated unheard
            self._hearing.missed("invalidations are heard from now on")
        self._up_to_date()  # there is nothing to be told of before

    def _doubt(self, reason: object) -> None:
        if self._doubted != str(reason):  # said once, for it is tried again soon
            log.warning("cache %s: invalidations are not heard yet: %s", self._cache, reason)
        self._doubted = str(reason)

    async def keep_up(self) -> None:
        """Attach where that is still to be done, and send the beat that is due."""
        try:
            await self.attach()
        except ClusterKitError as exc:
            self._doubt(exc)
        await self.beat()

    async def close(self) -> None:
        """Hear nothing more."""
        self._hearing = None
        self.live = self._attached = False
        await self._pubsub.unsubscribe(self._channel, self._receive)

    async def tell(self, change: Change) -> bool:
        """Tell other instances, or keep it for later; return whether they were told."""
        told = False
        try:
            told = await self._send(change)
        finally:
            if not told:
                self.unsent.add(change)
        return told

    async def _send(self, change: Change) -> bool:
        self.error = None
        if not self._attached or not self._pubsub.can_publish():  # to be heard takes no more
            return False
        try:
            for part in change.parts():
                await self._publish(part)
        except ClusterKitError as exc:
            if str(exc) != self._said:  # it is tried again soon
                log.warning("cache %s: invalidations are put off: %s", self._cache, exc)
            self.error, self._said = exc, str(exc)
            return False
        self._said = ""
        return True

    async def _publish(self, part: Change) -> None:
        before, now = self._told_at, self._monotonic()
        # Before it is confirmed: one told meanwhile must not pass for the first if this is lost.
        self._told_at = now
        try:
            await self._pubsub.publish(self._channel, after(now - before, part))
        except MessageTooLargeError:  # seen before anything else could be told
            self._told_at = before
            if not (smaller := part.smaller()):
                raise
            for some in smaller:
                await self._publish(some)
            return
        self._told_at, self._beats = self._monotonic(), 0

    @property
    def is_due(self) -> bool:
        """Whether `attach` or `beat` has something to do."""
        return not self._attached or self._quiet_enough

    @property
    def _quiet_enough(self) -> bool:
        if not self.live or self._beats >= BEATS:
            return False
        pause: float = self._beat * (2 ** (self._beats + 1) - 1)
        return self._monotonic() - self._told_at >= pause

    async def beat(self) -> None:
        """After the last change, show others its number, should they have missed it."""
        if not self._quiet_enough:
            return
        quiet = self._monotonic() - self._told_at
        self._beats += 1
        try:
            await self._pubsub.publish(self._channel, after(quiet))
        except ClusterKitError as exc:
            log.info("cache %s: a beat was not sent: %s", self._cache, exc)

    async def flush(self, owed: Unsent) -> None:
        """Tell what was kept, as far as it goes.

        Args:
            owed: what the store does not know.
        """
        additions = self.unsent.additions
        for change in tuple(self.unsent.parts()):
            if not await self._send(owed.as_told(change)):
                return
            self.unsent.done(change, additions)

    def look(self) -> bool:
        """Find out whether the link works; return whether `live` changed.

        After a loss it is live again once everything that was missed has been told, which takes
        at most `RECOVERY` seconds. Where the broker has kept all, nothing is told, but what it
        kept may arrive late: by then, what is held counts no more.
        """
        link = self._pubsub.linked_since(self._channel) if self._attached else None
        if link is None or link != self._link:  # lost, if only between two looks
            self._link, self._linked_since, self._away = link, None, True
        if link is None or self._linked_since is None:
            changed, self.live = self.live, False
            self._linked_since = None if link is None else self._monotonic()
            return changed
        if self.live:
            return False
        now = self._monotonic()
        self.live = now - self._linked_since >= RECOVERY
        if self.live and self._away and self._hearing is not None:
            self._away = False
            self._hearing.missed("the link was away")
        return self.live

    async def _receive(self, message: object, event: Event) -> None:
        change, known = from_message(message), event.origin in self._senders
        if len(self._senders) >= MAX_SENDERS:
            self._senders.clear()
        self._senders.add(event.origin)
        if self._hearing is None:
            return
        if not change.empty:
            self._hearing.heard(change)
        if not known and self._monotonic() - self._attached_at >= quiet_before(message):
            self._hearing.missed(f"the first broadcast of {event.origin} did not arrive")

    async def _gap(self, channels: list[str]) -> None:
        del channels  # there is but one
        if self._hearing is not None:
            self._hearing.missed("broadcasts were missed")
        self._up_to_date()

    def _up_to_date(self) -> None:
        """All that was missed has been told."""
        self._link, self._away = self._pubsub.linked_since(self._channel), False
        self._linked_since = self._monotonic() - RECOVERY
