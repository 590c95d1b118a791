"""A Redis as one adapter sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from cluster_kit.errors import ConnectError
from cluster_kit_aiocache.redis_backend import REDIS
from cluster_kit_aiocache.redis_client import DRIVER_ERRORS
from cluster_kit_aiocache.redis_faults import explained
from cluster_kit_aiocache.redis_lines import Lines
from cluster_kit_aiocache.redis_options import parse_url
from cluster_kit_aiocache.server import PROBE_SECONDS, Server

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_aiocache.redis_options import RedisOptions
    from cluster_kit_aiocache.server import Unavailable

Call = Callable[[Lines], Awaitable[Any]]
"""Asks something by the lines it is given."""


class RedisServer(Server[Lines]):
    """As `Server`; `url` is one of `cluster_kit_aiocache.redis_options`.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS

    def __init__(
        self, url: str, context: AdapterContext, purpose: str, unavailable: Unavailable
    ) -> None:
        self.options: RedisOptions = parse_url(url)
        self._context = context
        super().__init__(self.options.url, context, purpose, unavailable)

    async def connect(self, greet: Call) -> Any:  # noqa: ANN401 - the driver's
        """Return the driver's client after `greet`, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable or refused.
        """
        client = REDIS.borrow(self.options, self._context).client
        lines = Lines(client.connection_pool, self._context.tasks)
        try:
            async with asyncio.timeout(self._context.connect_timeout):
                await greet(lines)
        except BaseException as exc:
            await self._leave(lines)
            if not isinstance(exc, DRIVER_ERRORS):
                raise
            reason, retryable = explained(self.options, exc)
            raise ConnectError(self.options.url, reason, retryable=retryable) from exc
        self._joined(lines)
        return client

    async def _leave(self, client: Lines) -> None:
        await client.close()
        await REDIS.give_back(self.options, self._context)

    async def _ping(self) -> None:
        await self.ask("", lambda lines: lines.execute_command("PING"), PROBE_SECONDS)
