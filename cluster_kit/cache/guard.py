"""A store that may be away: every call has an end, and after several failures a rest."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.errors import CacheUnavailable, ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from cluster_kit.cache.connector import Connector
    from cluster_kit.clock import Clock

T = TypeVar("T")

MOST_KEYS, MOST_BYTES = 500, 1_000_000
"""In one call; a single value may be larger."""

FAILURES = 5
"""So many in a row, and the store is left alone for a while. Those of calls that began within one
timeout are one: many at once have one cause."""

REST = 2.0
"""How long, seconds; then a single call tries it."""


class Guard:
    """Calls a store on behalf of one cache.

    Args:
        cache: its name, for errors.
        connector: to the store.
        timeout: seconds for each call.
        clock: tells the time.
        failed: called with the reason of each failure.
    """

    def __init__(
        self,
        cache: str,
        connector: Connector,
        *,
        timeout: float,
        clock: Clock,
        failed: Callable[[str], None],
    ) -> None:
        self._cache = cache
        self._connector = connector
        self._store = connector.store
        self._timeout = timeout
        self._clock = clock
        self._report = failed
        self._failures = 0
        self._failed_at = 0.0  # when the last one that counts had begun
        self._resting_until = 0.0
        self._looked_at = -inf
        self._refusal = ""  # until something is stored, or what was refused is done
        self._refused = ""  # what that was, by its method
        self._last = ("", True)  # why it failed the last time, and whether to wait helps

    @property
    def trouble(self) -> str:
        """What is wrong, as the last calls went; empty when all is well."""
        if self._failures:
            return "its store does not answer"
        return self._refusal and f"its store refuses: {self._refusal}"

    @property
    def is_missed(self) -> bool:
        """Whether a look would show more than the last calls, and the last one is a while ago."""
        missed = self._failures > 0 or (self._refusal and self._refused == "read")
        return bool(missed) and self._clock.monotonic() >= self._looked_at + REST

    async def look(self, key: str) -> None:
        """Find out whether the store is back, although no caller asks. A failure counts nowhere."""
        self._looked_at = self._clock.monotonic()
        try:
            if not self._connector.connected:
                await self._connect()
            await self._store.read([key], timeout=self._timeout)
        except CacheUnavailable as exc:
            if exc.refused:
                self._failures, self._refusal, self._refused = 0, exc.reason, "read"
        except ConnectError:
            pass
        else:
            self._done("read")

    async def read(
        self, keys: Iterable[str], *, although_resting: bool = False
    ) -> list[bytes | None]:
        """As the port; so the others. However many there are, each part of them has its time."""
        found: list[bytes | None] = []
        for part in batched(keys):
            read = partial(self._store.read, part, timeout=self._timeout)
            found += await self._call("read", read, although_resting=although_resting)
        return found

    async def write(
        self, items: Mapping[str, bytes], ttl: float | None, then_read: Sequence[str]
    ) -> list[bytes | None]:
        """Store values, then read others."""
        found: list[bytes | None] = []
        parts = batched(items, lambda key: len(items[key]))
        for number, part in enumerate(parts, 1):
            some = {key: items[key] for key in part}
            marks = then_read if number == len(parts) else ()
            write = partial(self._store.write, some, ttl=ttl, then_read=marks)
            found = await self._call("write", partial(write, timeout=self._timeout))
            self._refusal = ""
        return found

    async def swap(
        self,
        key: str,
        body: bytes | None,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
    ) -> tuple[bool, list[bytes | None]]:
        """Store a value over what is expected, then read others."""
        swap = partial(self._store.swap, key, body, expected=expected, ttl=ttl)
        call = partial(swap, then_read=then_read, timeout=self._timeout)
        done, found = await self._call("swap", call)
        if done:
            self._refusal = ""
        return done, found

    async def settle(
        self, key: str, body: bytes, expected: bytes | None, *, although_resting: bool
    ) -> bool:
        """Store a value for good over what is expected."""
        swap = partial(self._store.swap, key, body, expected=expected, ttl=None)
        call = partial(swap, timeout=self._timeout)
        done, _ = await self._call("swap", call, although_resting=although_resting)
        if done:
            self._refusal = ""
        return done

    async def renew(
        self, keys: Sequence[str], make: Callable[[], bytes], ttl: float | None, *, present: bool
    ) -> list[bytes | None]:
        """Make versions; those that are replaced also in a store that is left alone, see there."""
        found: list[bytes | None] = []
        for part in batched(keys):
            renew = partial(self._store.renew, part, make, present=present, ttl=ttl)
            call = partial(renew, timeout=self._timeout)
            found += await self._call("renew", call, although_resting=present)
        return found

    async def remove(self, keys: Sequence[str], *, once: bool = False) -> list[bytes | None]:
        """Remove values, also from a store that is left alone: what is wrong must go."""
        heads: list[bytes | None] = []
        for part in batched(keys):
            remove = partial(self._store.remove, part, once=once, timeout=self._timeout)
            heads += await self._call("remove", remove, although_resting=True)
        return heads

    async def increment(
        self, key: str, amount: int, ttl: float | None, then_read: Sequence[str]
    ) -> tuple[int, list[bytes | None]]:
        """Add to a counter, then read."""
        count = partial(self._store.increment, key, amount, ttl=ttl, then_read=then_read)
        return await self._call("increment", partial(count, timeout=self._timeout))

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys with a prefix; it may take several times as long."""
        keys = partial(self._store.keys, prefix, timeout=20 * self._timeout)
        return await self._call("keys", keys)

    async def _call(
        self, what: str, call: Callable[[], Awaitable[T]], *, although_resting: bool = False
    ) -> T:
        now = self._clock.monotonic()
        if self._failures >= FAILURES and not although_resting:
            if now < self._resting_until:
                raise self._rested()
            self._resting_until = now + self._timeout  # this call tries it, others wait for that
        try:
            if not self._connector.connected:
                await self._connect()
            answer = await call()
        except CacheUnavailable as exc:
            refused = what if exc.refused else ""
            self._note(exc.reason, now, refused=refused, retryable=exc.retryable)
            raise CacheUnavailable(
                self._cache, exc.reason, refused=exc.refused, retryable=exc.retryable
            ) from exc
        except ConnectError as exc:
            self._note(str(exc), now, retryable=exc.retryable)
            raise CacheUnavailable(self._cache, str(exc), retryable=exc.retryable) from exc
        self._done(what)
        return answer

    def _done(self, what: str) -> None:
        self._failures = 0
        if what == self._refused and what != "swap":  # which stores nothing where another is there
            self._refusal = ""

    def _rested(self) -> CacheUnavailable:
        reason, retryable = self._last
        text = f"the store did not answer lately: {reason}"
        return CacheUnavailable(self._cache, text, retryable=retryable)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._connector.connect()
        except TimeoutError:
            raise CacheUnavailable(self._cache, "the store is not connected yet") from None

    def _note(
        self, reason: str, began: float, *, refused: str = "", retryable: bool = True
    ) -> None:
        self._last = reason, retryable
        if refused:  # it answered: others may have more luck
            self._failures, self._refusal, self._refused = 0, reason, refused
        elif not self._failures or began >= self._failed_at + self._timeout:
            self._failures, self._failed_at = self._failures + 1, began
        if self._failures >= FAILURES:
            self._resting_until = self._clock.monotonic() + REST
        self._report(reason)


def batched(keys: Iterable[str], size: Callable[[str], int] = len) -> list[list[str]]:
    """Return keys in parts that a call can take."""
    part = [*keys]
    if len(part) <= MOST_KEYS and sum(map(size, part)) <= MOST_BYTES:
        return [part] if part else []
    return [*_parts(part, size)]


def _parts(keys: Iterable[str], size: Callable[[str], int]) -> Iterator[list[str]]:
    part: list[str] = []
    taken = 0
    for key in keys:
        added = size(key)
        if part and (len(part) >= MOST_KEYS or taken + added > MOST_BYTES):
            yield part
            part, taken = [], 0
        part.append(key)
        taken += added
    if part:
        yield part
