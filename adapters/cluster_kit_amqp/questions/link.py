"""`cluster_kit_amqp.control.seam.ControlLink` on aiormq."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import quote

import aiormq
from pamqp.constants import DOMAIN_REGEX

from cluster_kit_amqp.link import LinkError
from cluster_kit_amqp.questions.calls import Calls, Outcome
from cluster_kit_amqp.questions.channel import AiormqChannel
from cluster_kit_amqp.questions.errors import Translated, dial_failed
from cluster_kit_amqp.questions.stream import Observed, Transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable

    from aiormq.abc import AbstractChannel

    from cluster_kit.ports import TaskSpawner
    from cluster_kit_amqp.options import Host, Options
    from cluster_kit_amqp.questions.calls import Closing

_CLOSE_TIMEOUT = 1.0  # seconds

_TOLD_BY_US = (  # through telemetry, health or an error, and there without the driver's addresses
    "error when creating transport: %r",
    "Cancelling cause reader exited abnormally",
    'Unexpected connection close from remote "%s", Connection.Close(reply_code=%r, reply_text=%r)',
    "Server connection %r was stuck. No frames were received in %d seconds.",
    "Connection %r was blocked by: %r",
    "Connection %r was unblocked",
    "Closing channel %r because RPC call %s cancelled",
    "Closing channel %r locally because RPC call %s cancelled before Channel.Open was sent",
    "Consumer %r cancelled by the broker on %r",
)


def _not_told_by_us(record: logging.LogRecord) -> bool:
    return record.msg not in _TOLD_BY_US


# RabbitMQ takes any UTF-8 as a name; pamqp holds to the few characters AMQP 0-9-1 lists. The
# broker's word counts. Process-wide, since that is where pamqp keeps the rule.
DOMAIN_REGEX.update(dict.fromkeys(DOMAIN_REGEX, re.compile(r".*", re.DOTALL)))

for _name in ("aiormq.connection", "aiormq.channel"):
    logging.getLogger(_name).addFilter(_not_told_by_us)


class _Connects(Protocol):
    """The part of the driver's connection that it leaves without a type."""

    async def connect(self) -> bool: ...


class AiormqLink:
    """Implements `cluster_kit_amqp.control.seam.ControlLink`."""

    def __init__(
        self, connection: aiormq.Connection, observed: Observed, tasks: TaskSpawner
    ) -> None:
        self._connection, self._observed, self._tasks = connection, observed, tasks
        self._calls = Calls(observed, tasks)
        observed.on_change = self._end_calls
        # After a close by the broker the driver stops reading: the stream sees no end of its own.
        cast("Closing", connection).closing.add_done_callback(self._closed)

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        return self._observed.lost

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes; None when it does."""
        return self._observed.blocked

    def _closed(self, _: asyncio.Future[object]) -> None:
        self._observed.end("the connection was closed")

    def _end_calls(self) -> None:
        if self.lost is not None:
            self._calls.end_all()

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[AiormqChannel, None]:
        """Open a channel for the length of the context."""
        call = self._connection.channel(publisher_confirms=False)
        channel = AiormqChannel(await self._opened(call), self._calls)
        try:
            yield channel
        finally:
            await channel.close()

    async def _opened(self, call: Awaitable[AbstractChannel]) -> AbstractChannel:
        outcome: Outcome[AbstractChannel] = Outcome()
        opening = self._calls.start(call, outcome)
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            left = self._close_when_open(opening, outcome)
            self._tasks.spawn(left, name="amqp control channel close")
            raise
        return outcome.get()

    async def _close_when_open(
        self, opening: asyncio.Task[None], outcome: Outcome[AbstractChannel]
    ) -> None:
        await asyncio.wait({opening})
        if outcome.result is not None:
            await AiormqChannel(outcome.result, self._calls).close()

    async def close(self) -> None:
        """Close the connection and its socket."""
        try:
            with suppress(LinkError, TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    with Translated():
                        await self._connection.close(
                            aiormq.exceptions.ConnectionClosed(200, "closed by this side")
                        )
        finally:
            self._observed.end("closed by this side")


async def dial_control(
    options: Options,
    host: Host,
    *,
    tls: ssl.SSLContext | None,
    name: str,
    tasks: TaskSpawner,
) -> AiormqLink:
    """Connect to one host. The caller bounds the time.

    Args:
        options: credentials, virtual host, heartbeat.
        host: where to.
        tls: settings of TLS; None for a plain connection.
        name: of the connection, shown by the broker.
        tasks: starts what must run to its end.

    Raises:
        DialFailed: it could not be made.
    """
    observed = Observed()
    connection = aiormq.Connection(
        f"amqp://{quote(options.user, safe='')}:{quote(options.password, safe='')}"
        f"@broker/?heartbeat={options.heartbeat}&auth={options.auth}",
        transport_factory=Transport(host, tls, observed),
        client_properties={
            "connection_name": name,
            "product": "cluster-kit",
            "version": version("cluster-kit"),
            "information": "",
        },
    )
    connection.vhost = options.vhost
    try:
        with Translated():
            await cast("_Connects", connection).connect()
    except LinkError as exc:
        observed.abort()
        raise dial_failed(exc, observed.lost, observed.closed_by) from exc
    except BaseException:
        observed.abort()  # also where the connection was made in the moment of a cancellation
        raise
    return AiormqLink(connection, observed, tasks)
