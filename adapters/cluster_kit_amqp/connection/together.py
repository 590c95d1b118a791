"""The connections of one adapter, opened and closed together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit_amqp.attempt import Attempt
from cluster_kit_amqp.connection.supervised import Connection, Purpose
from cluster_kit_amqp.control.by_name import LocksByName
from cluster_kit_amqp.control.declare import Announce, Declarer
from cluster_kit_amqp.control.on_demand import Control, OwnDial
from cluster_kit_amqp.control.seam import ControlLink, MakingLink
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.options import MAX_HEARTBEAT, Host, parse_url
from cluster_kit_amqp.plane.link import PlaneLink, dial
from cluster_kit_amqp.topology import check_app

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, Health


class Connections:
    """One connection to publish, another to consume; one to declare and one to ask, when needed.

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
        InvalidNameError: the application has a name that is the broker's.
        ConfigurationError: the URL is wrong otherwise, or a certificate file is.

    Attributes:
        publishing: for messages to the broker.
        consuming: for messages from it.
        declaring: for declarations.
        control: for questions.
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
        check_app(context.app)
        options = parse_url(url)
        self._options = replace(options, heartbeat=min(options.heartbeat, most_heartbeat))
        self._context = context
        self._tls = self._options.tls_context()
        self._server = ""
        self._changing_state = asyncio.Lock()
        self._turns = LocksByName()
        self.problems: Problems = Problems(context.clock)
        self.publishing: Connection = self._connection(publish)
        self.consuming: Connection = self._connection(consume)
        self.declaring: Control[MakingLink] = Control(
            self._dial_for("declare"), self._options, context
        )
        self.control: Control[ControlLink] = Control(self._dial_control, self._options, context)

    def _dial_for(self, purpose: str) -> OwnDial[PlaneLink]:
        async def dial_host(host: Host) -> PlaneLink:
            return await dial(self._options, host, tls=self._tls, name=self._name(purpose))

        return dial_host

    def _connection(self, purpose: Purpose) -> Connection:
        return Connection(
            self._dial_for(purpose),
            self._options,
            self._context,
            purpose=purpose,
            problems=self.problems,
        )

    async def _dial_control(self, host: Host) -> ControlLink:
        # Imported here, for it loads a driver nobody needs before the first question.
        from cluster_kit_amqp.questions.link import dial_control  # noqa: PLC0415

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
            self.declaring,
            self._options.declare,
            self._context.crash_limit,
            announce,
            self._context.tasks,
            self._turns,
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
            self.control.open()
            self.declaring.open()
            if self._options.declare != "none":  # the next thing that is needed
                self._context.tasks.spawn(self.declaring.ahead(), name="amqp declaring dial")
            await self._open_both()
            if (link := self.consuming.link) is not None:
                self._server = f"{link.server.product} {link.server.version}"

    async def _open_both(self) -> None:
        """Connect both at once, or neither."""
        both, tasks = (self.publishing, self.consuming), self._context.tasks
        attempts = [
            Attempt(tasks, "amqp connection open", each.open(self._context.connect_timeout))
            for each in both
        ]
        running = {attempt.task for attempt in attempts}
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await self._close(*both)
            raise
        if errors := [attempt.error for attempt in attempts if attempt.error is not None]:
            await self._close(*both)
            raise errors[0]

    async def close(self) -> None:
        """Close all. Idempotent, legal before `open`."""
        async with self._changing_state:
            await self._close(self.control, self.declaring, self.consuming, self.publishing)

    async def _close(self, *parts: Connection | Control[ControlLink] | Control[MakingLink]) -> None:
        """Close them at once: one that does not answer is waited for; they may all be frozen."""
        spawn = self._context.tasks.spawn
        await asyncio.wait({spawn(part.close(), name="amqp connection close") for part in parts})

    @property
    def linked_since(self) -> float | None:
        """Since when both may be used, seconds since 1970; None while one may not."""
        both = (*self.publishing.parts, *self.consuming.parts)
        return self.problems.well_since(both) if self.is_open else None

    @property
    def can_publish(self) -> bool:
        """Whether the one that publishes may be used."""
        return self.publishing.state == "ready"

    def health(self) -> Health:
        """Return the state as known now."""
        if self.is_open:
            self.problems.clear("adapter")
        else:
            self.problems.report("adapter", "down", "not connected")
        return self.problems.health(f"connected to {self._server}")
