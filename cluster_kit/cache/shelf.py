"""The two levels of one cache: what is held in this process, and what the store has."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.cache.changes import Unsent
from cluster_kit.cache.found import fresh
from cluster_kit.cache.local import Entry, Local, Ticket, moment
from cluster_kit.cache.values import MISSING
from cluster_kit.errors import CacheUnavailable, DecodeError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from cluster_kit.cache.envelope import Record
    from cluster_kit.cache.found import Found
    from cluster_kit.cache.options import CacheOptions
    from cluster_kit.cache.remote import Remote
    from cluster_kit.cache.stats import CacheStats
    from cluster_kit.cache.values import Values
    from cluster_kit.clock import Clock


class Span(NamedTuple):
    """How long a value counts, seconds; None for ever.

    Attributes:
        ttl: its own.
        left: of that.
        since: by the monotonic clock, when what it answers was asked; None for now.
    """

    ttl: float | None
    left: float | None
    since: float | None


class Shelf:
    """Looks values up and puts them, in this process and in the store.

    Attributes:
        local: what is held in this process.
        remote: what the store has; None without one.
        owed: what the store was not told to invalidate yet: there it does not count.

    Args:
        options: of the cache.
        values: how it keeps values.
        local: see there.
        remote: see there.
        l1_ttl: how long an entry is held here at most; None for its ttl.
        degraded_ttl: the same while invalidations may be missed.
        clock: tells the time.
        random: for jitter.
        stats: counts.
        live: whether invalidations of others arrive, as far as known.
        corrupt: called with a key whose value cannot be decoded.
    """

    def __init__(  # noqa: PLR0913 - the parts of a cache
        self,
        options: CacheOptions,
        values: Values,
        local: Local,
        remote: Remote | None,
        *,
        l1_ttl: float | None,
        degraded_ttl: float,
        clock: Clock,
        random: random.Random,
        stats: CacheStats,
        live: Callable[[], bool],
        corrupt: Callable[[str], None],
    ) -> None:
        self._options = options
        self._values = values
        self.local: Local = local
        self.remote: Remote | None = remote
        self.owed: Unsent = Unsent()
        self._l1_ttl = l1_ttl
        self._degraded_ttl = degraded_ttl if l1_ttl is None else min(degraded_ttl, l1_ttl)
        self._clock = clock
        self._random = random
        self._stats = stats
        self._live = live
        self._corrupt = corrupt
        self._grace = options.fail_safe or 0.0

    @property
    def grace(self) -> float:
        """Seconds after its ttl that a value may stand in for one that cannot be loaded."""
        return self._grace

    # --- looking up ------------------------------------------------------------------------------

    def held(self, key: str) -> Entry | None:
        """Return what is held here and can be trusted now."""
        entry = self.local.find(key)
        if entry is None or self._clock.monotonic() >= entry.until or self._is_doubtful(entry):
            return None
        entry.used = True
        return entry

    def standing_in(self, key: str) -> Entry | None:
        """Return what is handed out to who would have a value loaded, for that failed lately."""
        entry = self.local.find(key) if self._grace else None
        if entry is None or self._clock.monotonic() >= entry.stands or self._is_doubtful(entry):
            return None
        return entry

    def stale(self, key: str) -> Entry | None:
        """Return what is held here and may stand in for a value that cannot be loaded."""
        entry = self.local.find(key) if self._grace else None
        return None if entry is None or self._is_doubtful(entry) else entry

    def _is_doubtful(self, entry: Entry) -> bool:
        """Whether it may have been invalidated unheard for too long."""
        return not self._live() and self._clock.monotonic() - entry.born >= self._degraded_ttl

    async def found(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[Found | None]:
        """Ask the store; None for what it must not be believed, or when it does not answer."""
        if self.remote is None:
            return [None] * len(keys)
        told = self.owed.told
        try:
            answers = await self.remote.read(keys, tags)
        except CacheUnavailable:
            return [None] * len(keys)
        return [
            None if self.is_owed(key, answer.record, told) else answer
            for key, answer in zip(keys, answers, strict=True)
        ]

    def is_owed(self, key: str, record: Record | None, told: int) -> bool:
        """Whether the store did not know yet that something is invalidated when it was asked.

        Args:
            key: that was asked for.
            record: the answer.
            told: `Unsent.told` of what is owed, before it was asked: it may have been told since.
        """
        owed = self.owed
        if owed.told != told:
            return True
        if not owed:
            return False
        tags = record.tags if record is not None else ()
        return owed.concerns(key) or any(tag in owed.tags for tag in tags)

    async def fetch(self, keys: Sequence[str]) -> dict[str, object]:
        """Return the values that count, from here or from the store, which are then held here."""
        values: dict[str, object] = {}
        lacking: list[str] = []
        wanted = dict.fromkeys(keys)
        for key in wanted:
            if (entry := self.held(key)) is None:
                lacking.append(key)
            else:
                values[key] = entry.copy()
        self._stats.local_hits += len(values)
        if lacking and self.remote is not None:
            tickets = [self.local.open(key) for key in lacking]
            try:
                for ticket, found in zip(tickets, await self.found(lacking), strict=True):
                    value = self._take(ticket, found)
                    if value is not MISSING:
                        values[ticket.key] = value
                        self._stats.store_hits += 1
            finally:
                for ticket in tickets:
                    self.local.close(ticket)
        self._stats.misses += len(wanted) - len(values)
        return values

    def _take(self, ticket: Ticket, found: Found | None) -> object:
        """Return the value that was found, which is then held here, or `MISSING`."""
        key = ticket.key
        if found is not None and found.record is None:
            self.local.discard(key)  # nor may it stand in
        if found is None or found.record is None or not fresh(found.record, self._clock.wall()):
            return MISSING
        if not self.local.keeps:
            return self._decoded(key, found.record)
        entry = self.adopt(key, found.record, ticket)
        if entry is None:
            return MISSING
        return entry.copy() if self.local.entries.get(key) is entry else entry.value

    def _decoded(self, key: str, record: Record) -> object:
        try:
            return self._values.decode(record.payload)
        except (DecodeError, RecursionError):
            self._corrupt(key)
            return MISSING

    def adopt(self, key: str, record: Record, ticket: Ticket | None) -> Entry | None:
        """Return what a record says, and with a ticket hold it here; None for a bad one."""
        left, tags = record.left(self._clock.wall()), frozenset(record.tags)
        try:
            value = self._values.decode(record.payload)
            since = None if ticket is None else ticket.since
            entry = self._made(value, record.payload, Span(record.ttl, left, since), tags)
        except (DecodeError, RecursionError):
            self._corrupt(key)
            return None
        if ticket is not None:
            self.local.redeem(ticket, entry)
        return entry

    # --- putting ---------------------------------------------------------------------------------

    def encode(self, values: Mapping[str, object]) -> dict[str, bytes]:
        """Return the bytes of each value. Raises as `Values.encode`."""
        return {key: self._values.encode(key, value) for key, value in values.items()}

    def lifetime(self, ttl: float | None) -> float | None:
        """Return how long a value is to count that is stored now."""
        life = self._options.ttl if ttl is None else ttl
        if life is None or not self._options.jitter:
            return life
        return life * (1 - self._random.uniform(0.0, self._options.jitter))

    async def put(
        self,
        values: Mapping[str, object],
        payloads: Mapping[str, bytes],
        ttl: float | None,
        tags: Sequence[str],
    ) -> Callable[[], None]:
        """Store values, which were encoded; return what holds them here, to be called at once.

        Raises:
            CacheUnavailable: the store did not answer; they may be stored.
            MessageTooLargeError: the store refused one; others may be stored.
        """
        life = self.lifetime(ttl)
        kept: Mapping[str, object] = values if self.local.keeps else {}
        entries = {key: self.entry(kept[key], payloads[key], life, tags) for key in kept}
        tickets = [self.local.open(key) for key in kept]
        try:
            if self.remote is not None:
                await self.remote.write(payloads, ttl=life, grace=self._grace, tags=tags)
        finally:
            for ticket in tickets:
                self.local.close(ticket)
        intact = [t.key for t in tickets if self.local.stands(t, tags)]

        def hold() -> None:
            for key in intact:
                self.local.put(key, entries[key])

        return hold

    def entry(
        self,
        value: object,
        payload: bytes,
        ttl: float | None,
        tags: Sequence[str],
        ticket: Ticket | None = None,
    ) -> Entry:
        """Return what holds a value that counts from now on.

        Args:
            value: that a caller gave, or a loader.
            payload: its bytes.
            ttl: its own.
            tags: that invalidate it.
            ticket: of the load: what it returns may be as old as its first step.
        """
        own = self._values.own(value, payload)
        since = None if ticket is None else ticket.since
        return self._made(own, payload, Span(ttl, ttl, since), frozenset(tags))

    def passing(self, key: str, value: object) -> Entry:
        """Return what holds a value that is kept nowhere."""
        value = self._values.unkept(key, value)
        return Entry(value, self._values.copier(value), 0.0, inf, 0.0, 0.0, 0.0, frozenset(), 0)

    def shorten(self, entry: Entry) -> bool:
        """Let an entry that is not in the store count for a moment only; return that it does."""
        entry.until = entry.usable = min(entry.until, entry.born + self._degraded_ttl)
        entry.stands = min(entry.stands, entry.usable)
        return True

    def stand_in(self, ticket: Ticket, entry: Entry, seconds: float) -> None:
        """Hand out for a while what is over, for it could not be loaded."""
        now = self._clock.monotonic()
        trusted = None if self.remote is None else self._l1_ttl
        entry.stands = min(entry.usable, now + seconds, moment(now, trusted))
        entry.eager = max(entry.eager, now + seconds)
        if self.local.entries.get(ticket.key) is not entry:
            self.local.redeem(ticket, entry)

    def _made(
        self,
        value: object,
        payload: bytes,
        span: Span,
        tags: frozenset[str],
    ) -> Entry:
        now, ttl = self._clock.monotonic(), span.ttl
        born = now if span.since is None else span.since
        expires = moment(now, span.left)
        trusted = moment(now, self._l1_ttl)  # without a word of the store
        until, usable, share = min(expires, trusted), expires + self._grace, self._options.eager
        return Entry(
            value=value,
            copier=self._values.copier(value),
            until=until,
            eager=inf if share is None or ttl is None else expires - ttl * (1 - share),
            expires=expires,
            usable=usable if self.remote is None else min(usable, trusted),
            born=born,
            tags=tags,
            size=self._values.size(value, payload),
        )
