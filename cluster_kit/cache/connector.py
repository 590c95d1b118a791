"""A store that is connected by its first use, and used by several caches."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cluster_kit.errors import CacheUnavailable, ClusterKitError
from cluster_kit.errors.base import blaming
from cluster_kit.ports import Health

if TYPE_CHECKING:
    from cluster_kit.ports import CacheStore, HealthStatus
    from cluster_kit.supervisor import Supervisor


log = logging.getLogger(__name__)


class Connector:
    """Connects a store once, however many ask; after a failure whoever asks next tries again.

    Args:
        store: not connected.
        supervisor: starts the connecting.
        source: what its URL comes from, for errors.

    Attributes:
        store: see there.
        connected: whether it was connected; from then on it keeps itself so.
        refused: why it could not be connected the last time; empty when it was not tried.
    """

    def __init__(self, store: CacheStore, supervisor: Supervisor, source: str) -> None:
        self.store: CacheStore = store
        self._supervisor = supervisor
        self._source = source
        self._connecting: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._closed = False
        self.connected: bool = False
        self.refused: str = ""

    async def connect(self) -> None:
        """Connect, unless that is done.

        Raises:
            ConnectError: it cannot be connected.
            Exception: whatever else the store raises.
            CacheUnavailable: it was closed, for good.
        """
        while not self.connected:
            if self._closed:  # by a stop, which a load has outlived
                raise CacheUnavailable("", "the store is closed")
            if self._connecting is None:
                work = self._connect()
                self._connecting = self._supervisor.spawn(work, name="connect a cache's store")
            await asyncio.wait({self._connecting})
            if self._error is not None:
                raise self._error

    def health(self) -> Health:
        """Return the state of the store as it concerns caches: `degraded` where it is down."""
        health = self.store.health()
        if self.connected:
            status: HealthStatus = "ok" if health.status == "ok" else "degraded"
            return Health(status=status, detail=health.detail, since=health.since)
        if self.refused:
            return Health(status="degraded", detail=self.refused, since=health.since)
        return Health(status="ok", detail=f"{self._source}: not used yet", since=health.since)

    async def close(self) -> None:
        """Close the store."""
        self._closed, self.connected = True, False
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait({connecting})
        await self.store.close()

    async def _connect(self) -> None:
        self._error = None
        try:
            await self.store.connect()
        except ClusterKitError as exc:
            self._error = blaming(exc, self._source)
            self._refuse(str(self._error))
        except Exception as exc:  # noqa: BLE001 - foreign code; raised where it was asked for
            self._error = exc
            self._refuse(f"{self._source}: {type(exc).__name__}: {exc}")
        else:
            self.connected, self.refused = True, ""
        finally:
            self._connecting = None

    def _refuse(self, reason: str) -> None:
        if not self.refused:  # said once, for it is tried again with each call
            log.warning("caches have no store: %s", reason)
        self.refused = reason
