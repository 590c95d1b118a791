"""How a connection begins: start, tune, open (2.2.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from cluster_kit_amqp.link import DialFailed
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.plane.frames import SMALLEST_FRAME_MAX, MalformedError
from cluster_kit_amqp.plane.methods import Tuning

if TYPE_CHECKING:
    from cluster_kit_amqp.options import Options
    from cluster_kit_amqp.plane.protocol import AmqpProtocol

_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "publisher_confirms": True,
}
"""RabbitMQ's own: what it does only for those who say they understand it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What this side says of itself."""

    name: str
    mechanism: str
    response: bytes = field(repr=False)
    vhost: str
    limits: Tuning

    @classmethod
    def of(cls, options: Options, name: str) -> Introduction:
        """Return that of `options`, for a connection called `name`."""
        if options.auth == "external":
            mechanism, response = "EXTERNAL", b""
        else:
            mechanism, response = "PLAIN", f"\0{options.user}\0{options.password}".encode()
        return cls(
            name=name,
            mechanism=mechanism,
            response=response,
            vhost=options.vhost,
            limits=Tuning(options.channel_max, options.frame_max, options.heartbeat),
        )

    def properties(self) -> dict[str, object]:
        """Return the client's properties (connection.start-ok)."""
        return {
            "product": "cluster-kit",
            "version": own_version(),
            "platform": "Python",
            "connection_name": self.name,
            "capabilities": _CAPABILITIES,
        }


@cache
def own_version() -> str:
    """Return the version of this library, which takes long to find the first time."""
    return version("cluster-kit")


class Handshake:
    """Answers the server until the connection is open.

    Attributes:
        done: its result are the server's properties, once the connection is open.
    """

    def __init__(self, introduction: Introduction) -> None:
        self._own = introduction
        self._protocol: AmqpProtocol | None = None
        self._expected = methods.CONNECTION_START
        self._server: Mapping[str, object] = {}
        self.done: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()

    def attach(self, protocol: AmqpProtocol) -> None:
        """Speak through `protocol`."""
        self._protocol = protocol
        protocol.on_change = self._lost

    def _lost(self) -> None:
        """The connection ended before it was open."""
        protocol = self._protocol
        if protocol is not None and protocol.lost is not None and not self.done.done():
            self.done.set_exception(_failure(protocol))

    def method(self, index: int, arguments: bytes) -> None:
        """Take a method of channel 0.

        Raises:
            MalformedError: it is not the one that must come now.
        """
        protocol = self._protocol
        if protocol is None:
            raise MalformedError("the server spoke before it was greeted")
        if index == methods.CONNECTION_CLOSE:
            protocol.closed_by_peer(arguments)
            return
        if index != self._expected:
            raise MalformedError(f"method {methods.name(index)} came out of place")
        match index:
            case methods.CONNECTION_START:
                protocol.send(self._start(arguments))
                self._expected = methods.CONNECTION_TUNE
            case methods.CONNECTION_TUNE:
                tuning = agreed(self._own.limits, methods.read_tune(arguments))
                protocol.send(methods.tune_ok(tuning) + methods.connection_open(self._own.vhost))
                protocol.tuned(tuning)
                self._expected = methods.CONNECTION_OPEN_OK
            case _:
                protocol.opened()
                if not self.done.done():
                    self.done.set_result(self._server)

    def _start(self, arguments: bytes) -> bytes:
        start = methods.read_start(arguments)
        if self._own.mechanism not in start.mechanisms:
            offered = ", ".join(start.mechanisms)
            raise MalformedError(
                f"the server has no authentication {self._own.mechanism}, it has {offered}"
            )
        self._server = start.properties
        return methods.start_ok(self._own.properties(), self._own.mechanism, self._own.response)


def agreed(ours: Tuning, theirs: Tuning) -> Tuning:
    """Return the limits both sides can live with; where one has none, the other's counts.

    Raises:
        MalformedError: the server allows only frames that are smaller than any may be.

    >>> agreed(Tuning(2047, 131072, 10), Tuning(0, 8192, 60))
    Tuning(channel_max=2047, frame_max=8192, heartbeat=10)
    """
    tuning = Tuning(
        *(
            min(ours_, theirs_) if ours_ and theirs_ else ours_ or theirs_
            for ours_, theirs_ in zip(ours, theirs, strict=True)
        )
    )
    if tuning.frame_max < SMALLEST_FRAME_MAX:
        raise MalformedError(f"the server allows frames of {tuning.frame_max} bytes only")
    return tuning


def _failure(protocol: AmqpProtocol) -> DialFailed:
    """Return why there is no connection, in the broker's words where it said any."""
    if protocol.closed_by is not None:
        return DialFailed.by_broker(*protocol.closed_by)
    return DialFailed(protocol.lost or "the connection was lost")
