"""A memcached as one adapter sees it: connected, asked within a time, and judged by its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cluster_kit.errors import ConnectError
from cluster_kit_aiocache.memcached_client import DRIVER_ERRORS, MEMCACHED, MemcachedClient
from cluster_kit_aiocache.memcached_options import parse_url
from cluster_kit_aiocache.redis_client import say
from cluster_kit_aiocache.state import State

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, Health
    from cluster_kit_aiocache.memcached_options import MemcachedOptions
    from cluster_kit_aiocache.state import Unavailable

T = TypeVar("T")

_PROBE_SECONDS = 2.0


class MemcachedServer:
    """The server behind one adapter.

    Args:
        url: see `cluster_kit_aiocache.memcached_options`.
        context: of the instance.
        purpose: what the adapter serves.
        unavailable: see `state`.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(
        self, url: str, context: AdapterContext, purpose: str, unavailable: Unavailable
    ) -> None:
        self._options: MemcachedOptions = parse_url(url)
        self._context = context
        self._unavailable = unavailable
        self._client: MemcachedClient | None = None  # while connected
        self._state = State(context, purpose, self._options.url, self._ping)

    async def connect(self) -> MemcachedClient:
        """Return the client, its server asked for its version within `connect_timeout`.

        Raises:
            ConnectError: unreachable, or no memcached.
        """
        client = MEMCACHED.borrow(self._options, self._context)
        try:
            async with asyncio.timeout(self._context.connect_timeout):
                await client.version()
        except BaseException as exc:
            await MEMCACHED.give_back(self._options, self._context)
            if not isinstance(exc, DRIVER_ERRORS):
                raise
            raise ConnectError(self._options.url, say(exc)) from exc
        self._client = client
        self._state.well()
        return client

    async def close(self) -> None:
        """Close every connection. Idempotent, legal before `connect`."""
        await self._state.close()
        client, self._client = self._client, None
        if client is not None:
            await MEMCACHED.give_back(self._options, self._context)

    @property
    def connected(self) -> bool:
        """Whether it may be asked."""
        return self._client is not None

    def health(self) -> Health:
        """Return how the last call went."""
        return self._state.health()

    async def ask(
        self, about: str, call: Callable[[MemcachedClient], Awaitable[T]], timeout: float
    ) -> T:
        """Return the server's answer.

        Raises:
            ClusterKitError: as `Unavailable` makes it; no answer in time, or an error.
        """
        client = self._client
        if client is None:
            raise self._unavailable(about, "not connected")
        try:
            async with asyncio.timeout(timeout):
                answer = await call(client)
        except DRIVER_ERRORS as exc:
            self._state.ill(say(exc))
            raise self._unavailable(about, say(exc)) from exc
        self._state.well()
        return answer

    async def _ping(self) -> None:
        await self.ask("", MemcachedClient.version, _PROBE_SECONDS)
