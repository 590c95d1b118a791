"""Who waits for a lock on Redis hears of its release."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cluster_kit_aiocache.redis_client import DRIVER_ERRORS

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext

_IDLE_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class _Channel:
    """Who listens to a channel; `live` while the server is known to send to us."""

    def __init__(self) -> None:
        self.live = asyncio.Event()
        self.listeners: set[asyncio.Event] = set()
        self.unused_since = 0.0

    def wake(self) -> None:
        for listener in self.listeners:
            listener.set()


class Wakeups:
    """One subscribing connection for all locks of an instance, there while somebody waits.

    What was sent while that connection was away is lost. So whoever listens is woken whenever
    the server confirms a subscription, the first time and after every reconnect.

    Args:
        context: of the adapter.
    """

    def __init__(self, context: AdapterContext) -> None:
        self._context = context
        self._client: Any = None
        self._channels: dict[str, _Channel] = {}
        self._pubsub: Any = None
        self._swept = 0.0
        self._reader: asyncio.Task[None] | None = None

    def use(self, client: Any) -> None:  # noqa: ANN401 - the driver's
        """Subscribe by this client from now on, on a connection of its own."""
        self._client = client

    async def listen(self, name: str, listener: asyncio.Event, *, timeout: float) -> bool:
        """Set `listener` at every release; False when that is not certain within `timeout`."""
        channel = self._channels.setdefault(name, _Channel())
        channel.listeners.add(listener)
        if self._reader is None or self._reader.done():
            self._reader = self._context.tasks.spawn(self._read(), name="lock wake-ups")
        elif not channel.live.is_set() and self._pubsub is not None:
            with suppress(*DRIVER_ERRORS):  # the reader finds out and subscribes anew
                async with asyncio.timeout(timeout):
                    await self._pubsub.subscribe(name)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await channel.live.wait()
        return channel.live.is_set()

    def leave(self, name: str, listener: asyncio.Event) -> None:
        """Hear no more of it. The subscription stays for a while, for the next who waits."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.listeners.discard(listener)
            channel.unused_since = self._context.clock.monotonic()

    async def close(self) -> None:
        """End the connection."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
        self._channels.clear()

    async def _read(self) -> None:
        pause = _FIRST_PAUSE
        while self._channels:
            pubsub = self._pubsub = self._client.pubsub()
            try:
                await pubsub.subscribe(*self._channels)
                while self._channels:
                    await self._take(pubsub)
                    pause = _FIRST_PAUSE
                    await self._sweep(pubsub)
            except DRIVER_ERRORS:
                await asyncio.sleep(pause * self._context.random.uniform(0.8, 1.2))
                pause = min(2 * pause, _LONGEST_PAUSE)
            finally:
                self._pubsub = None
                for channel in self._channels.values():
                    channel.live.clear()
                with suppress(*DRIVER_ERRORS):
                    await pubsub.aclose()

    async def _take(self, pubsub: Any) -> None:  # noqa: ANN401 - the driver's
        message = await pubsub.get_message(timeout=_LOOK_SECONDS)
        if message is None:
            return
        channel = self._channels.get(message["channel"].decode())
        if channel is None:
            return
        if message["type"] == "subscribe":
            channel.live.set()
        channel.wake()

    async def _sweep(self, pubsub: Any) -> None:  # noqa: ANN401 - the driver's
        now = self._context.clock.monotonic()
        if now - self._swept < _LOOK_SECONDS:
            return
        self._swept = now
        unused = [
            name
            for name, channel in self._channels.items()
            if not channel.listeners and now - channel.unused_since > _IDLE_SECONDS
        ]
        for name in unused:
            del self._channels[name]
        if unused and self._channels:
            await pubsub.unsubscribe(*unused)
