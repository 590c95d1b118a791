"""A link of the seam, and how one is made."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cluster_kit_amqp.link import DialFailed, LinkDown
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.plane.calls import tell
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.handshake import Handshake, Introduction, own_version
from cluster_kit_amqp.plane.protocol import AmqpProtocol
from cluster_kit_amqp.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit_amqp.options import Host, Options


class PlaneLink:
    """Implements `cluster_kit_amqp.link.Link`."""

    def __init__(self, protocol: AmqpProtocol, server: Mapping[str, object]) -> None:
        self._protocol = protocol
        self._callbacks: list[Callable[[], None]] = []
        protocol.on_change = self._changed
        heartbeat = protocol.heartbeat
        self.server: Server = Server(
            product=str(server.get("product", "")),
            version=str(server.get("version", "")),
            heartbeat=0 if heartbeat is None else heartbeat.interval,
        )

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        return self._protocol.lost

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes; None when it does."""
        return self._protocol.blocked

    @property
    def silence(self) -> float:
        """Seconds since the broker was heard last, while the link was up."""
        return self._protocol.silence

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when `lost` or `blocked` changes."""
        self._callbacks.append(callback)

    def _changed(self) -> None:
        for callback in tuple(self._callbacks):
            tell(callback)

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncGenerator[PlaneChannel, None]:
        """Open a channel for the length of the context."""
        channel = await self.open_channel(confirms=confirms)
        try:
            yield channel
        finally:
            await channel.close()

    async def open_channel(self, *, confirms: bool = False) -> PlaneChannel:
        """Open a channel that the caller closes."""
        if self._protocol.lost is not None:
            raise LinkDown(self._protocol.lost, sent=False)
        channel = self._protocol.new_channel()
        opening = methods.channel_open(channel.number), methods.CHANNEL_OPEN_OK
        if confirms:  # sent together, answered in their order
            channel.ask(*opening)
            await channel.call(methods.confirm_select(channel.number), methods.CONFIRM_SELECT_OK)
        else:
            await channel.call(*opening)
        return channel

    async def close(self) -> None:
        """Close the connection and its socket."""
        await self._protocol.close()


async def dial(
    options: Options,
    host: Host,
    *,
    tls: ssl.SSLContext | None,
    name: str,
) -> PlaneLink:
    """Connect to one host. The caller bounds the time.

    Args:
        options: credentials, virtual host, limits.
        host: where to.
        tls: settings of TLS; None for a plain connection.
        name: of the connection, shown by the broker.

    Raises:
        DialFailed: it could not be made.
    """
    loop = asyncio.get_running_loop()
    handshake = Handshake(Introduction.of(options, name))
    protocol = AmqpProtocol(loop, options.frame_max, handshake.method)
    handshake.attach(protocol)
    try:
        await loop.create_connection(lambda: protocol, host.name, host.port, ssl=tls)
        own_version()  # wanted for the answer, and found while the server makes its greeting
        server = await handshake.done
    except (OSError, UnicodeError) as exc:  # the latter of a host name that cannot be one
        raise DialFailed(_reason(exc)) from exc
    except BaseException:
        handshake.done.cancel()
        protocol.fail("the attempt was given up")  # also one that had just succeeded
        raise
    return PlaneLink(protocol, server)


def _reason(error: OSError | UnicodeError) -> str:
    """Return why no socket could be had, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "the server speaks no TLS on this port, which amqps:// asks for"
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
