"""How an adapter is, judged by the calls it made."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cluster_kit.errors import ClusterKitError
from cluster_kit.ports import Health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster_kit.ports import AdapterContext, HealthStatus

log = logging.getLogger(__name__)

_PROBE_SECONDS = 1.0
_ADAPTER = "aiocache"


class State:
    """Down from a call that failed to one that did not. While down, it asks by itself.

    Args:
        context: of the adapter.
        purpose: what it serves.
        url: redacted.
        probe: asks the server something; raises one of our errors when it does not answer.
    """

    def __init__(
        self,
        context: AdapterContext,
        purpose: str,
        url: str,
        probe: Callable[[], Awaitable[object]],
    ) -> None:
        self._context = context
        self._purpose = purpose
        self._url = url
        self._probe = probe
        self._trouble = "not connected"
        self._since = context.clock.wall()
        self._prober: asyncio.Task[None] | None = None

    def well(self) -> None:
        """A call was answered."""
        if self._trouble:
            self._trouble = ""
            self._since = self._context.clock.wall()
            log.info("%s: %s is up", self._purpose, self._url)
            self._context.emit(
                "connection.up", adapter=_ADAPTER, purpose=self._purpose, url=self._url
            )

    def ill(self, reason: str) -> None:
        """A call failed."""
        if not self._trouble:
            self._since = self._context.clock.wall()
            log.warning("%s: %s is lost: %s", self._purpose, self._url, reason)
            self._context.emit(
                "connection.lost", adapter=_ADAPTER, purpose=self._purpose, reason=reason
            )
            self._prober = self._context.tasks.spawn(
                self._ask(), name=f"probe of the {self._purpose}"
            )
        self._trouble = reason

    async def close(self) -> None:
        """Ask no more."""
        prober, self._prober = self._prober, None
        if prober is not None:
            prober.cancel()
            await asyncio.wait({prober})
        self._trouble = "closed"
        self._since = self._context.clock.wall()

    def health(self) -> Health:
        """Return the state."""
        status: HealthStatus = "down" if self._trouble else "ok"
        detail = f"{self._url}: {self._trouble}" if self._trouble else self._url
        return Health(status=status, detail=detail, since=self._since)

    async def _ask(self) -> None:
        while self._trouble:
            await asyncio.sleep(_PROBE_SECONDS * self._context.random.uniform(0.8, 1.2))
            try:
                await self._probe()
            except ClusterKitError:
                continue
