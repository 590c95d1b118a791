"""The connections of one adapter, opened and closed together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit_amqp.connection import Connection, Purpose
from cluster_kit_amqp.control import Control, ControlLink
from cluster_kit_amqp.declare import Announce, Declarer
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.options import MAX_HEARTBEAT, Host, parse_url
from cluster_kit_amqp.plane.link import dial

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, Health
    from cluster_kit_amqp.link import Link


class Connections:
    """One connection to publish, another to consume, and a third for questions, while there are.

    A broker that is short of memory stops reading from a connection that publishes, and
    acknowledgements on it would be stuck behind.

    Args:
        url: see `cluster_kit_amqp.options`.
        context: of the port.
        publish: what the publishing connection is called.
        consume: what the consuming one is called.
        most_heartbeat: seconds; the URL may say less.

    Raises:
        UnknownOptionError: the URL has an option nothing reads.
        ConfigurationError: the URL is wrong otherwise, or a certificate file is.

    Attributes:
        publishing: for messages to the broker.
        consuming: for messages from it.
        control: for questions and declarations.
        problems: what is wrong now.
    """

    def __init__(
        self,
        url: str,
        context: AdapterContext,
        *,
        publish: Purpose = "publish",
        consume: Purpose = "consume",
        most_heartbeat: int = MAX_HEARTBEAT,
    ) -> None:
        options = parse_url(url)
        self._options = replace(options, heartbeat=min(options.heartbeat, most_heartbeat))
        self._context = context
        self._tls = self._options.tls_context()
        self._server = ""
        self._changing_state = asyncio.Lock()
        self.problems: Problems = Problems(context.clock)
        self.publishing: Connection = self._connection(publish)
        self.consuming: Connection = self._connection(consume)
        self.control: Control = Control(self._dial_control, self._options, context)

    def _connection(self, purpose: Purpose) -> Connection:
        async def dial_host(host: Host) -> Link:
            return await dial(self._options, host, tls=self._tls, name=self._name(purpose))

        return Connection(
            dial_host, self._options, self._context, purpose=purpose, problems=self.problems
        )

    async def _dial_control(self, host: Host) -> ControlLink:
        # Imported here, for it loads a driver nobody needs before the first question.
        from cluster_kit_amqp.aiormq_link import dial_control  # noqa: PLC0415

        return await dial_control(
            self._options,
            host,
            tls=self._tls,
            name=self._name("control"),
            tasks=self._context.tasks,
        )

    def _name(self, purpose: str) -> str:
        """Return what the broker shows of a connection."""
        name = self._options.name or f"{self._context.app} {self._context.instance_id}"
        return f"{name} {purpose}"

    def declarer(self, announce: Announce | None = None) -> Declarer:
        """Return what makes sure of the topology for one of the connections.

        Args:
            announce: called before a work queue is made for the first time.
        """
        return Declarer(
            self.control,
            self._options.declare,
            self._context.crash_limit,
            announce,
            self._context.tasks,
        )

    @property
    def heartbeat(self) -> int:
        """Seconds asked for; the broker may want less."""
        return self._options.heartbeat

    @property
    def is_open(self) -> bool:
        """Whether they are there, or being made again."""
        return self.publishing.state != "closed"

    async def open(self) -> None:
        """Connect, within `AdapterContext.connect_timeout` seconds. Idempotent.

        Raises:
            ConnectError: no host could be used.
        """
        async with self._changing_state:
            if self.is_open:
                return
            began = self._context.clock.monotonic()
            self.control.open()
            await self.publishing.open(self._context.connect_timeout)
            passed = self._context.clock.monotonic() - began
            try:
                await self.consuming.open(max(0.0, self._context.connect_timeout - passed))
            except BaseException:
                await self.publishing.close()
                raise
            if (link := self.consuming.link) is not None:
                self._server = f"{link.server.product} {link.server.version}"

    async def close(self) -> None:
        """Close all. Idempotent, legal before `open`."""
        ends = (self.control.close, self.consuming.close, self.publishing.close)
        async with self._changing_state:
            # At once: one that does not answer is waited for, and they may all be frozen.
            spawn = self._context.tasks.spawn
            await asyncio.wait({spawn(end(), name="amqp connection close") for end in ends})

    def health(self) -> Health:
        """Return the state as known now."""
        if self.is_open:
            self.problems.clear("adapter")
        else:
            self.problems.report("adapter", "down", "not connected")
        return self.problems.health(f"connected to {self._server}")
