"""A Redis as one adapter sees it: connected, asked within a time, and judged by its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from cluster_kit.errors import ClusterKitError, ConnectError
from cluster_kit_aiocache.redis_backend import REDIS
from cluster_kit_aiocache.redis_client import DRIVER_ERRORS, MOST_CALLS, lasting
from cluster_kit_aiocache.redis_lines import Lines
from cluster_kit_aiocache.redis_options import parse_url
from cluster_kit_aiocache.state import State, say

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, Health
    from cluster_kit_aiocache.redis_options import RedisOptions

Call = Callable[[Lines], Awaitable[Any]]
"""Asks something by the lines it is given."""

Unavailable = Callable[[str, str], ClusterKitError]
"""Makes the error of a call that failed, from what it was about and the reason."""

_PROBE_SECONDS = 2.0


class RedisServer:
    """The server behind one adapter.

    Args:
        url: see `cluster_kit_aiocache.redis_options`.
        context: of the instance.
        purpose: what the adapter serves.
        unavailable: see there.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(
        self, url: str, context: AdapterContext, purpose: str, unavailable: Unavailable
    ) -> None:
        self.options: RedisOptions = parse_url(url)
        self._context = context
        self._unavailable = unavailable
        self._lines: Lines | None = None  # while connected
        self._state = State(context, purpose, self.options.url, self._ping)
        self._places = asyncio.Semaphore(MOST_CALLS)

    async def connect(self, greet: Call) -> Any:  # noqa: ANN401 - the driver's
        """Return the driver's client after `greet`, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable or refused.
        """
        client = REDIS.borrow(self.options, self._context).client
        lines = Lines(client.connection_pool)
        try:
            async with asyncio.timeout(self._context.connect_timeout):
                await greet(lines)
        except BaseException as exc:
            await lines.close()
            await REDIS.give_back(self.options, self._context)
            if not isinstance(exc, DRIVER_ERRORS):
                raise
            retryable = not lasting(exc)
            raise ConnectError(self.options.url, say(exc), retryable=retryable) from exc
        self._lines = lines
        self._state.well()
        return client

    async def close(self) -> None:
        """Close every connection. Idempotent, legal before `connect`."""
        await self._state.close()
        lines, self._lines = self._lines, None
        if lines is not None:
            await lines.close()
            await REDIS.give_back(self.options, self._context)

    @property
    def connected(self) -> bool:
        """Whether it may be asked."""
        return self._lines is not None

    def health(self) -> Health:
        """Return how the last call went."""
        return self._state.health()

    async def ask(self, about: str, call: Call, timeout: float) -> Any:  # noqa: ANN401 - the server's
        """Return the server's answer.

        Raises:
            ClusterKitError: as `Unavailable` makes it; no answer in time, or an error.
        """
        lines = self._lines
        if lines is None:
            raise self._unavailable(about, "not connected")
        try:
            async with asyncio.timeout(timeout), self._places:
                answer = await call(lines)
        except DRIVER_ERRORS as exc:
            self._state.ill(say(exc))
            raise self._unavailable(about, say(exc)) from exc
        self._state.well()
        return answer

    async def _ping(self) -> None:
        await self.ask("", lambda lines: lines.execute_command("PING"), _PROBE_SECONDS)
