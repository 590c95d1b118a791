"""A store whose calls can be held, before they reach it or before their answer is seen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from cluster_kit.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from cluster_kit.ports import CacheStore, Health, StoreCapabilities

T = TypeVar("T")


class Pauses:
    """Holds the call with a number, counted from `arm` on.

    Attributes:
        reached: set when it is held.
        calls: so many since `arm`.
    """

    def __init__(self) -> None:
        self.reached: asyncio.Event = asyncio.Event()
        self.calls: int = 0
        self._go = asyncio.Event()
        self._number: int | None = None
        self._after = False

    def arm(self, number: int, *, after: bool) -> None:
        """Hold call `number`, from 0: before it reaches the store, or before its answer is seen."""
        self.reached.clear()
        self._go.clear()
        self.calls, self._number, self._after = 0, number, after

    async def held(self, *, timeout: float = PATIENCE) -> None:
        """Wait until the call is held.

        Args:
            timeout: seconds after which to give up.

        Raises:
            AssertionError: it was not made in time.
        """
        what = f"the pause at call {self._number} of the store was never reached"
        await in_time(self.reached, lambda: f"{what}, {self.calls} were made", timeout=timeout)

    def release(self) -> None:
        """Hold nothing any more."""
        self._number = None
        self._go.set()

    async def hold(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call."""
        number, self.calls = self.calls, self.calls + 1
        mine = number == self._number
        if mine and not self._after:
            try:
                await self._wait()
            except asyncio.CancelledError:
                call.close()
                raise
        answer = await call
        if mine and self._after:
            await self._wait()
        return answer

    async def _wait(self) -> None:
        self.reached.set()
        await self._go.wait()


async def in_time(
    event: asyncio.Event, lacking: str | Callable[[], str], *, timeout: float = PATIENCE
) -> None:
    """Wait for what a scenario has to come by, or fail rather than wait for ever.

    Args:
        event: set by then.
        lacking: what to say if it is not.
        timeout: seconds.

    Raises:
        AssertionError: it was not set in time.
    """
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        text = lacking if isinstance(lacking, str) else lacking()
        raise AssertionError(f"waited {timeout:g} s in vain: {text}") from None


class PausingStore:
    """A `CacheStore` around another one.

    Args:
        store: see there.
        pauses: of its calls.
    """

    def __init__(self, store: CacheStore, pauses: Pauses) -> None:
        self._store = store
        self._pauses = pauses

    @property
    def capabilities(self) -> StoreCapabilities:
        """What it promises."""
        return self._store.capabilities

    async def connect(self) -> None:
        """Connect."""
        await self._store.connect()

    async def close(self) -> None:
        """Close."""
        await self._store.close()

    def health(self) -> Health:
        """Return its state."""
        return self._store.health()

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        """Return values."""
        return await self._pauses.hold(self._store.read(keys, timeout=timeout))

    async def write(
        self,
        items: Mapping[str, bytes],
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> list[bytes | None]:
        """Store values, then read."""
        call = self._store.write(items, ttl=ttl, then_read=then_read, timeout=timeout)
        return await self._pauses.hold(call)

    async def swap(
        self,
        key: str,
        body: bytes | None,
        *,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[bool, list[bytes | None]]:
        """Store a value over what is expected, then read."""
        call = self._store.swap(
            key, body, expected=expected, ttl=ttl, then_read=then_read, timeout=timeout
        )
        return await self._pauses.hold(call)

    async def renew(
        self,
        keys: Sequence[str],
        make: Callable[[], bytes],
        *,
        present: bool,
        ttl: float | None,
        timeout: float,
    ) -> list[bytes | None]:
        """Give keys values there never were."""
        call = self._store.renew(keys, make, present=present, ttl=ttl, timeout=timeout)
        return await self._pauses.hold(call)

    async def remove(
        self, keys: Sequence[str], *, once: bool = False, timeout: float
    ) -> list[bytes | None]:
        """Remove values."""
        return await self._pauses.hold(self._store.remove(keys, once=once, timeout=timeout))

    async def increment(
        self,
        key: str,
        amount: int,
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[int, list[bytes | None]]:
        """Add to a counter, then read."""
        call = self._store.increment(key, amount, ttl=ttl, then_read=then_read, timeout=timeout)
        return await self._pauses.hold(call)

    async def keys(self, prefix: str, *, timeout: float) -> list[str]:
        """Return keys."""
        return await self._pauses.hold(self._store.keys(prefix, timeout=timeout))
