"""Publishing broadcasts: in the order of the calls, confirmed or an error that tells the truth."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.broadcast import NeverSent
from cluster_kit.deadlines import Deadlines, Within
from cluster_kit_amqp.broadcast.line import Line, Means
from cluster_kit_amqp.broadcast.names import exchange_name, steps_to
from cluster_kit_amqp.broadcast.wire import to_message
from cluster_kit_amqp.connection.publishing_channel import Progress, PublishingChannel, State

if TYPE_CHECKING:
    from cluster_kit.broadcast import Broadcast, Transport
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection.supervised import Connection
    from cluster_kit_amqp.control.declare import Declarer


class Broadcaster:
    """Publishes broadcasts over one connection, a line for each exchange."""

    def __init__(self, connection: Connection, declarer: Declarer, context: AdapterContext) -> None:
        self._context = context
        self._outlet = PublishingChannel(connection, context)
        self._means = Means(
            connection=connection, declarer=declarer, outlet=self._outlet, context=context
        )
        self._lines: dict[str, Line] = {}
        self._deadlines = Deadlines()

    async def publish(self, message: Broadcast, transport: Transport, timeout: float) -> None:
        """Store a broadcast. See the port."""
        exchange = exchange_name(self._context.app, message.realm, transport)
        started = self._context.clock.monotonic()
        progress = Progress(message.id, message.channel, len(message.body), started)
        line = self._lines.get(exchange) or self._new_line(exchange, message.realm, transport)
        pending = line.put(
            message.channel,
            to_message(message, transport, copy_id=progress.copy_id, app=self._context.app),
            progress,
        )
        try:
            with Within(self._deadlines, timeout):
                await pending.done
        except TimeoutError:
            if progress.state is State.CONFIRMED:  # while the event loop stood still
                return
            if pending.done.done() and not pending.done.cancelled():
                pending.done.result()
            raise self._outlet.out_of_time(timeout, progress) from None
        except asyncio.CancelledError:
            if progress.state is State.WAITING:
                raise NeverSent from None
            raise

    def _new_line(self, exchange: str, realm: str, transport: Transport) -> Line:
        limits = self._context.broadcasts
        steps = steps_to(self._context.app, realm, transport, limits)
        line = self._lines[exchange] = Line(exchange, steps, self._means)
        return line

    def stop(self) -> None:
        """Send nothing more: what waits ends with an error; what was sent does with its link."""
        for line in self._lines.values():
            line.close()

    def close(self) -> None:
        """Let go of the timer."""
        self._deadlines.close()
