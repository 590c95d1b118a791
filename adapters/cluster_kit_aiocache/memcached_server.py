"""A memcached as one adapter sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from cluster_kit.errors import ConnectError
from cluster_kit_aiocache.memcached_client import DRIVER_ERRORS, MemcachedClient, StrangerError
from cluster_kit_aiocache.memcached_connections import CONNECTIONS
from cluster_kit_aiocache.memcached_options import parse_url
from cluster_kit_aiocache.server import PROBE_SECONDS, Server, say

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_aiocache.memcached_options import MemcachedOptions
    from cluster_kit_aiocache.server import Unavailable


class MemcachedServer(Server[MemcachedClient]):
    """As `Server`; `url` is one of `cluster_kit_aiocache.memcached_options`.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS

    def __init__(
        self, url: str, context: AdapterContext, purpose: str, unavailable: Unavailable
    ) -> None:
        self._options: MemcachedOptions = parse_url(url)
        self._context = context
        super().__init__(self._options.url, context, purpose, unavailable)

    async def connect(self) -> None:
        """Ask the server for its version, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable, or no memcached.
        """
        client = MemcachedClient(CONNECTIONS.borrow(self._options, self._context))
        try:
            async with asyncio.timeout(self._context.connect_timeout):
                await client.version()
        except BaseException as exc:
            await self._leave(client)
            if not isinstance(exc, DRIVER_ERRORS):
                raise
            retryable = not isinstance(exc, StrangerError)
            raise ConnectError(self._options.url, say(exc), retryable=retryable) from exc
        self._joined(client)

    async def _leave(self, client: MemcachedClient) -> None:
        del client  # its connections may have other users
        await CONNECTIONS.give_back(self._options, self._context)

    async def _ping(self) -> None:
        await self.ask("", MemcachedClient.version, PROBE_SECONDS)
