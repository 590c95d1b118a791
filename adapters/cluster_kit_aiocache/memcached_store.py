"""Values of caches on memcached."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.errors import (
    CacheUnavailable,
    ConfigurationError,
    MessageTooLargeError,
)
from cluster_kit.ports import Health, StoreCapabilities
from cluster_kit_aiocache.memcached_client import RefusalError, expect, key_of, stored
from cluster_kit_aiocache.memcached_connections import NoNumberError, ProtocolError
from cluster_kit_aiocache.memcached_server import MemcachedServer
from cluster_kit_aiocache.server import PATIENCE, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cluster_kit.ports import AdapterContext
    from cluster_kit_aiocache.memcached_client import MemcachedClient
    from cluster_kit_aiocache.memcached_connections import Answer

T = TypeVar("T")

MOST_VALUE_BYTES = 1_000_000
"""Of a server that was not told to take more, with room for key and head."""

CAPABILITIES = StoreCapabilities(
    backend="memcached",
    scope="server",
    ttl_grain=2.0,
    lists_keys=False,
    max_value_bytes=MOST_VALUE_BYTES,
)

_LONGEST_RELATIVE = 30 * 24 * 3600  # seconds; more is taken for a time since 1970


class MemcachedStore:
    """A `CacheStore` on one memcached.

    Args:
        url: see `cluster_kit_aiocache.memcached_options`.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._server = MemcachedServer(url, context, "cache", CacheUnavailable)
        self._clock = context.clock

    @property
    def capabilities(self) -> StoreCapabilities:
        """What it promises."""
        return CAPABILITIES

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Ask the server for its version, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable, or no memcached.
        """
        if not self._server.connected:
            await self._server.connect()

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()

    def health(self) -> Health:
        """Return how the last call went."""
        return self._server.health()

    # --- values ----------------------------------------------------------------------------------

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        """Return values."""
        if not keys:
            return []

        async def call(client: MemcachedClient) -> list[bytes | None]:
            requests = [_look(key) for key in keys]
            try:
                answers = await client.ask(*requests)
            except (OSError, EOFError):  # a connection the server had closed meanwhile
                answers = await client.ask(*requests)
            return [_value(answer) for answer in answers]

        return await self._ask(call, timeout)

    async def write(
        self,
        items: Mapping[str, bytes],
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> list[bytes | None]:
        """Store values, then read."""
        end = self._expiry(ttl)

        async def call(client: MemcachedClient) -> list[bytes | None]:
            sets = [_store(key, body, b"T%d" % end) for key, body in items.items()]
            answers = await client.ask(*sets, *map(_look, then_read))
            for body, answer in zip(items.values(), answers, strict=False):
                _done(answer, body)
            return [_value(answer) for answer in answers[len(sets) :]]

        return await self._ask(call, timeout)

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
        """Store a value over what is expected: over the very version that was looked at."""
        end = self._expiry(ttl)

        async def call(client: MemcachedClient) -> tuple[bool, list[bytes | None]]:
            done = await _swap(client, key, body, expected, end)
            answers = await client.ask(*map(_look, then_read))
            return done, [_value(answer) for answer in answers]

        return await self._ask(call, timeout)

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
        flags = b"T%d M%b" % (self._expiry(ttl), b"R" if present else b"E")

        async def call(client: MemcachedClient) -> list[bytes | None]:
            stores = [_store(key, make(), flags) for key in keys]
            answers = await client.ask(*stores, *map(_look, keys))
            for answer in answers[: len(keys)]:
                stored(answer)
            return [_value(answer) for answer in answers[len(keys) :]]

        return await self._ask(call, timeout)

    async def remove(
        self,
        keys: Sequence[str],
        *,
        once: bool = False,  # noqa: ARG002 - nothing is repeated here
        timeout: float,
    ) -> list[bytes | None]:
        """Remove values."""

        async def call(client: MemcachedClient) -> list[bytes | None]:
            deletes = [b"md %b\r\n" % key_of(key) for key in keys]
            answers = await client.ask(*map(_look, keys), *deletes)
            for answer in answers[len(keys) :]:
                stored(answer)
            return [_value(answer) for answer in answers[: len(keys)]]

        return await self._ask(call, timeout)

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
        end = self._expiry(ttl)

        async def call(client: MemcachedClient) -> tuple[int, list[bytes | None]]:
            request = b"ma %b N%d J%d D%d v\r\n" % (key_of(key), end, amount, amount)
            requests = [request, *map(_look, then_read)]
            try:
                count, *answers = await client.ask(*requests)
            except NoNumberError:  # nobody here has written it
                item = await client.get(key_of(key))
                if item is not None and not item.value.isdigit():
                    await client.delete(key_of(key), item.cas)
                count, *answers = await client.ask(*requests)
            expect(count, b"VA")
            return int(count[1]), [_value(answer) for answer in answers]

        return await self._ask(call, timeout)

    async def keys(self, prefix: str, *, timeout: float) -> list[str]:
        """Refuse: memcached cannot tell.

        Raises:
            ConfigurationError: always.
        """
        del prefix, timeout
        raise ConfigurationError("memcached cannot tell which keys there are")

    async def _ask(self, call: Callable[[MemcachedClient], Awaitable[T]], timeout: float) -> T:
        async def told(client: MemcachedClient) -> T:
            try:
                return await call(client)
            except RefusalError as exc:
                raise CacheUnavailable("", say(exc), refused=True) from exc

        return await self._server.ask("", told, timeout, patience=PATIENCE * timeout)

    def _expiry(self, ttl: float | None) -> int:
        """Return whole seconds, one more than asked: the last one may be cut short."""
        if ttl is None:
            return 0
        whole = ceil(ttl) + 1
        return whole if whole <= _LONGEST_RELATIVE else whole + int(self._clock.wall())


def _look(key: str) -> bytes:
    return b"mg %b v\r\n" % key_of(key)


def _store(key: str, body: bytes, flags: bytes) -> bytes:
    return b"ms %b %d %b\r\n%b\r\n" % (key_of(key), len(body), flags, body)


async def _swap(
    client: MemcachedClient, key: str, body: bytes | None, expected: bytes | None, end: int
) -> bool:
    """Store `body`, or nothing, over what is expected; return whether that was there."""
    if expected is None:
        if body is None:
            return _value((await client.ask(_look(key)))[0]) is None
        return _done((await client.ask(_store(key, body, b"T%d ME" % end)))[0], body)
    while True:
        item = await client.get(key_of(key))
        if item is None or not item.value.startswith(expected):
            return False
        if body is None:
            done = await client.delete(key_of(key), item.cas)
        else:
            request = _store(key, body, b"T%d C%d" % (end, item.cas))
            done = _done((await client.ask(request))[0], body)
        if done:  # else it was replaced, maybe by one that is expected, too
            return True


def _value(answer: Answer) -> bytes | None:
    if answer[0][0] == b"EN":
        return None
    expect(answer, b"VA")
    return answer[1]


def _done(answer: Answer, body: bytes) -> bool:
    """Return whether a value was stored.

    Raises:
        MessageTooLargeError: it is more than the server takes.
        ProtocolError: it failed for another reason.
    """
    try:
        return stored(answer)
    except ProtocolError as exc:
        if "too large" in str(exc):
            raise MessageTooLargeError("the value", len(body), MOST_VALUE_BYTES) from exc
        raise
