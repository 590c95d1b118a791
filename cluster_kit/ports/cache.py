"""Stores of caches: bytes by key, with an expiry and a conditional write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from cluster_kit.ports.context import AdapterContext

if TYPE_CHECKING:
    from cluster_kit.ports.context import Health

HEAD_BYTES = 12
"""How much of the beginning of a value tells it from every other value of its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCapabilities:
    """What a store promises.

    Attributes:
        backend: its name.
        scope: who sees the same values: all of a ``process``, or all that reach a ``server``.
        ttl_grain: seconds to which an expiry is rounded up.
        lists_keys: whether `CacheStore.keys` works.
        max_value_bytes: largest value; None leaves it to the settings.
    """

    backend: str
    scope: Literal["process", "server"]
    ttl_grain: float = 0.001
    lists_keys: bool = True
    max_value_bytes: int | None = None


class CacheStore(Protocol):
    """Keeps bytes by key. It may lose any of them at any time, but never invents or mixes them.

    Keys are up to 400 bytes of UTF-8 without spaces and control characters. A `ttl` is in seconds,
    above 0, or None for no expiry; a value goes no earlier than its ttl, and at most
    `StoreCapabilities.ttl_grain` later. A call has `timeout` seconds for its answer, from when it
    is its turn, for which it may wait as long as others are answered. One whose caller gave up, by
    cancellation or timeout, may have taken effect, and harms no other call.

    Every method that touches the server raises `cluster_kit.errors.CacheUnavailable` when there
    was no usable answer in time, and no error of a driver.
    """

    @property
    def capabilities(self) -> StoreCapabilities:
        """What it promises."""
        ...

    async def connect(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        From then on the store keeps itself connected until `close`.

        Raises:
            ConnectError: unreachable, refused, or not what it should be.
        """
        ...

    async def close(self) -> None:
        """Close everything. Idempotent, legal before `connect`. What is stored stays."""
        ...

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        """Return the values of `keys` in order, None where there is none."""
        ...

    async def write(
        self,
        items: Mapping[str, bytes],
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> list[bytes | None]:
        """Store all `items`, each as a whole, then read; one round trip where the server can.

        Returns:
            The values of `then_read`, as `read` does, as they were after the last item was stored.

        Raises:
            MessageTooLargeError: a value is more than the server takes.
        """
        ...

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
        """Store `body` only over what is expected, as one atomic step, then read.

        One over nothing is not repeated when its answer is lost: the copy that comes late would
        be stored once more, after the first was removed.

        Args:
            key: of the value.
            body: new value; None removes it.
            expected: what the present value must begin with, `HEAD_BYTES` or less; None: there
                must be no value.
            ttl: of the new value.
            then_read: keys, as those of `write`.
            timeout: seconds.

        Returns:
            Whether it was stored, and the values of `then_read`.

        Raises:
            MessageTooLargeError: the value is more than the server takes.
        """
        ...

    async def renew(
        self,
        keys: Sequence[str],
        make: Callable[[], bytes],
        *,
        present: bool,
        ttl: float | None,
        timeout: float,
    ) -> list[bytes | None]:
        """Give keys values there never were: versions, each replaced as one atomic step.

        One that comes back would bring back what it stood for. So nothing that `make` returned is
        sent twice: a call that is repeated, for its connection was lost, asks it again.

        Args:
            keys: of the versions.
            make: returns a new value, a few random bytes, for one key and one try.
            present: renew those that have a value, a full store, too; otherwise those without one.
            ttl: of the new values.
            timeout: seconds.

        Returns:
            What each key has after that, None for nothing.
        """
        ...

    async def remove(
        self, keys: Sequence[str], *, once: bool = False, timeout: float
    ) -> list[bytes | None]:
        """Remove values and return the first 64 bytes or more of each, None where was none.

        Args:
            keys: of the values.
            once: fail rather than ask again: what a lost answer told of would be missed.
            timeout: seconds.
        """
        ...

    async def increment(
        self,
        key: str,
        amount: int,
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[int, list[bytes | None]]:
        """Add to a counter as one atomic step, then read; one round trip where the server can.

        A counter that is not there begins with `amount`, from 1 to 2**31, and its `ttl` runs from
        then on; later calls do not prolong it. `read` and `remove` know it as decimal digits. Bytes
        that are no number count as no counter.

        Returns:
            The counter, and the values of `then_read`.
        """
        ...

    async def keys(self, prefix: str, *, timeout: float) -> list[str]:
        """Return the keys that begin with `prefix`, without blocking the server for long."""
        ...

    def health(self) -> Health:
        """Return the state as known now, without asking the server."""
        ...


CacheFactory = Callable[[str, AdapterContext], CacheStore]
"""Makes a store from its URL. Raises `UnknownOptionError` for query options it does not know."""
