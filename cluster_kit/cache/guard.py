"""A store that may be away: every call has an end, and after several failures a rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.errors import CacheUnavailable, ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from cluster_kit.cache.connector import Connector
    from cluster_kit.clock import Clock

T = TypeVar("T")

FAILURES = 5
"""So many in a row, and the store is left alone for a while."""

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
        self._resting_until = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._failures > 0

    async def read(self, keys: Iterable[str]) -> list[bytes | None]:
        """As the port; so the others."""
        asked = list(keys)
        return await self._call(lambda: self._store.read(asked, timeout=self._timeout))

    async def write(
        self,
        items: Mapping[str, bytes],
        ttl: float | None,
        then_read: Sequence[str] = (),
        *,
        invalidates: bool = False,
    ) -> list[bytes | None]:
        """Store values, then read others; what invalidates is as urgent as `remove`."""
        return await self._call(
            lambda: self._store.write(items, ttl=ttl, then_read=then_read, timeout=self._timeout),
            although_resting=invalidates,
        )

    async def swap(
        self,
        key: str,
        body: bytes | None,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
    ) -> tuple[bool, list[bytes | None]]:
        """Store a value over what is expected, then read others."""
        timeout = self._timeout
        return await self._call(
            lambda: self._store.swap(
                key, body, expected=expected, ttl=ttl, then_read=then_read, timeout=timeout
            )
        )

    async def remove(self, keys: Sequence[str]) -> list[bytes | None]:
        """Remove values, also from a store that is left alone: what is wrong must go."""
        return await self._call(
            lambda: self._store.remove(keys, timeout=self._timeout), although_resting=True
        )

    async def increment(
        self, key: str, amount: int, ttl: float | None, then_read: Sequence[str]
    ) -> tuple[int, list[bytes | None]]:
        """Add to a counter, then read."""
        return await self._call(
            lambda: self._store.increment(
                key, amount, ttl=ttl, then_read=then_read, timeout=self._timeout
            )
        )

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys with a prefix; it may take several times as long."""
        return await self._call(lambda: self._store.keys(prefix, timeout=20 * self._timeout))

    async def _call(self, call: Callable[[], Awaitable[T]], *, although_resting: bool = False) -> T:
        now = self._clock.monotonic()
        if self._failures >= FAILURES and not although_resting:
            if now < self._resting_until:
                raise CacheUnavailable(self._cache, "the store did not answer lately")
            self._resting_until = now + self._timeout  # this call tries it, others wait for that
        try:
            if not self._connector.connected:
                await self._connect()
            answer = await call()
        except CacheUnavailable as exc:
            self._note(exc.reason)
            raise CacheUnavailable(self._cache, exc.reason) from exc
        except ConnectError as exc:
            self._note(exc.reason)
            raise CacheUnavailable(self._cache, str(exc)) from exc
        self._failures = 0
        return answer

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._connector.connect()
        except TimeoutError:
            raise CacheUnavailable(self._cache, "the store is not connected yet") from None

    def _note(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._resting_until = self._clock.monotonic() + REST
        self._report(reason)
