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
_CONNECT_SECONDS = 5.0
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

    It is a plain connection of the driver's pool, not the driver's own subscriber: that connects
    by itself whenever it is used, and so more than once where several use it.

    Args:
        context: of the adapter.
    """

    def __init__(self, context: AdapterContext) -> None:
        self._context = context
        self._pool: Any = None
        self._channels: dict[str, _Channel] = {}
        self._connection: Any = None
        self._swept = 0.0
        self._reader: asyncio.Task[None] | None = None

    def use(self, client: Any) -> None:  # noqa: ANN401 - the driver's
        """Subscribe by this client from now on, on a connection of its own."""
        self._pool = client.connection_pool

    async def listen(self, name: str, listener: asyncio.Event, *, timeout: float) -> None:
        """Set `listener` at every release. Returns when that is certain, or after `timeout`."""
        channel = self._channels.get(name)
        known = channel is not None
        if channel is None:
            channel = self._channels[name] = _Channel()
        channel.listeners.add(listener)
        if self._reader is None or self._reader.done():
            self._reader = self._context.tasks.spawn(self._read(), name="lock wake-ups")
        # The reader finds out about errors, and subscribes to everything anew.
        with suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(timeout):
                if not known:
                    await self._say("SUBSCRIBE", name)
                await channel.live.wait()

    def hears(self, name: str) -> bool:
        """Whether the server is known to tell of this channel."""
        channel = self._channels.get(name)
        return channel is not None and channel.live.is_set()

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

    async def _say(self, command: str, *names: str) -> None:
        """Send a command, unless there is no connection: the next one begins with all channels."""
        connection = self._connection
        if connection is not None and connection.is_connected:  # else it would connect
            await connection.send_command(command, *names, check_health=False)

    async def _read(self) -> None:
        pause = _FIRST_PAUSE
        while self._channels:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):  # the driver bounds no handshake
                    connection = await self._pool.get_connection()
                try:
                    self._connection = connection
                    await self._say("SUBSCRIBE", *self._channels)
                    while self._channels:
                        if await self._take(connection):
                            pause = _FIRST_PAUSE
                        await self._sweep()
                finally:
                    self._connection = None
                    for channel in self._channels.values():
                        channel.live.clear()
                    await connection.disconnect(nowait=True)
                    await self._pool.release(connection)
            except DRIVER_ERRORS:
                await asyncio.sleep(pause * self._context.random.uniform(0.8, 1.2))
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _take(self, connection: Any) -> bool:  # noqa: ANN401 - the driver's
        """Read what the server says; whether it said something in time."""
        said: list[Any] | None = await connection.read_response(
            timeout=_LOOK_SECONDS, disconnect_on_error=False, push_request=True
        )
        if said is None:
            return False
        kind, name = said[0], said[1]
        channel = self._channels.get(name.decode())
        if channel is not None and kind != b"unsubscribe":
            if kind == b"subscribe":
                channel.live.set()
            channel.wake()
        return True

    async def _sweep(self) -> None:
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
            await self._say("UNSUBSCRIBE", *unused)
