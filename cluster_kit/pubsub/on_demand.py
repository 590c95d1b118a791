"""An adapter that is connected by its first use: who never broadcasts has no connection for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.broadcast import NeverSent
from cluster_kit.errors import ConnectError, ConnectionLost
from cluster_kit.errors.base import blaming
from cluster_kit.ports import Health

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding, Broadcast, Transport
    from cluster_kit.clock import Clock
    from cluster_kit.ports import Listener, PubSubAdapter


class OnDemandPubSub:
    """Implements `cluster_kit.ports.PubSubAdapter` around another one.

    Args:
        adapter: not connected.
        clock: tells the time.
        source: what its URL comes from, for errors.
    """

    def __init__(self, adapter: PubSubAdapter, clock: Clock, source: str) -> None:
        self._adapter = adapter
        self._clock = clock
        self._source = source or "pubsub"
        self._since = clock.wall()
        self._connected = False
        self._turn = asyncio.Lock()
        self._standing = 0
        self._attempts = 0
        self._error: ConnectError | None = None

    async def connect(self) -> None:
        """Leave it to the first use."""

    async def close(self) -> None:
        """Close it, if it was used."""
        await self._adapter.close()

    def listen(self, realm: str, listener: Listener) -> None:
        """Hand everything of `realm` to `listener`."""
        self._adapter.listen(realm, listener)

    async def publish(self, message: Broadcast, *, transport: Transport, timeout: float) -> None:
        """Connect first, then send. Raises as the port says."""
        try:
            await self._ready()
        except ConnectError as exc:
            raise ConnectionLost(f"{exc}; nothing was sent") from exc
        except asyncio.CancelledError as exc:
            raise NeverSent(*exc.args) from None
        await self._adapter.publish(message, transport=transport, timeout=timeout)

    async def bind(self, binding: Binding) -> None:
        """Connect first, then bind.

        Raises:
            ConnectError: it cannot be connected.
            TopologyError: as the port says.
        """
        await self._ready()
        await self._adapter.bind(binding)

    async def unbind(self, binding: Binding) -> None:
        """Receive it no longer."""
        await self._adapter.unbind(binding)

    def linked_since(self, binding: Binding) -> float | None:
        """Return since when it comes and goes; None before the first use."""
        return self._adapter.linked_since(binding) if self._connected else None

    def can_publish(self) -> bool:
        """Return whether the link that was made lets messages go."""
        return self._connected and self._adapter.can_publish()

    def health(self) -> Health:
        """Return its state; that of one never used is good."""
        if self._connected:
            return self._adapter.health()
        if self._error is not None:
            return Health(status="down", detail=str(self._error), since=self._since)
        return Health(status="ok", detail="not used yet", since=self._since)

    async def _ready(self) -> None:
        """Return in the order of the calls: nobody overtakes who waited for the connection."""
        if self._connected and not self._standing:
            return
        attempts = self._attempts
        self._standing += 1
        try:
            async with self._turn:
                if not self._connected:
                    await self._connect(attempts)
        finally:
            self._standing -= 1

    async def _connect(self, attempts: int) -> None:
        """Connect, unless that has just been tried in vain for somebody who came together."""
        if self._error is not None and self._attempts > attempts:
            raise self._error
        self._attempts += 1
        try:
            await self._adapter.connect()
        except ConnectError as exc:
            if self._error is None:
                self._since = self._clock.wall()
            self._error = blaming(exc, self._source)
            raise self._error from exc.__cause__
        self._connected, self._error = True, None
