"""Keeps one connection to the broker: dials, watches, dials again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from cluster_kit.errors import ConnectError
from cluster_kit_amqp.backoff import Backoff
from cluster_kit_amqp.link import DialFailed, Link, LinkDown

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.health import Problems
    from cluster_kit_amqp.options import Host, Options

log = logging.getLogger(__name__)

Purpose = Literal[
    "publish", "consume", "pubsub publish", "pubsub consume", "locks publish", "locks consume"
]
State = Literal["closed", "connecting", "blocked", "ready"]

_STEADY = 10.0  # seconds a connection must have lived for the delays to start over


class Dial(Protocol):
    """Makes a link to one host; raises `DialFailed`. The caller bounds the time."""

    async def __call__(self, host: Host) -> Link:
        """Make the link."""
        ...


class Connection:
    """One connection under supervision.

    After `open` it is either up or being made again, for ever, until `close`. Whoever waits for
    it waits in `ready` or `writable`, under a deadline of their own.

    Attributes:
        generation: number of links there have been; what was declared or sent on an earlier one
            belongs to the past.
        writable_now: the link while it is up and the broker takes publishes; as `writable`.
    """

    def __init__(
        self,
        dial: Dial,
        options: Options,
        context: AdapterContext,
        *,
        purpose: Purpose,
        problems: Problems,
    ) -> None:
        self._dial, self._options, self._context = dial, options, context
        self._purpose, self._problems = purpose, problems
        self._hosts = list(options.hosts)
        if options.shuffle:
            context.random.shuffle(self._hosts)
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._blocked = False
        self.generation: int = 0
        self.writable_now: Link | None = None

    @property
    def url(self) -> str:
        """Of the broker, without its password."""
        return self._options.url

    @property
    def link(self) -> Link | None:
        """The link, when it is up."""
        link = self._link
        return link if link is not None and link.lost is None else None

    @property
    def state(self) -> State:
        """What it is doing now."""
        if self._task is None:
            return "closed"
        link = self.link
        if link is None:
            return "connecting"
        return "ready" if link.blocked is None else "blocked"

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback()` when the link comes or goes; return what undoes it."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    # --- opening and closing -----------------------------------------------------------------

    async def open(self, timeout: float) -> None:
        """Make the first link, within `timeout` seconds for all hosts together.

        Raises:
            ConnectError: no host could be used; the text has the reason of each.
        """
        deadline = self._context.clock.monotonic() + timeout
        failures: list[DialFailed] = []
        for number, host in enumerate(self._hosts):
            left = max(0.0, deadline - self._context.clock.monotonic())
            try:
                self._up(await self._dial_within(host, left / (len(self._hosts) - number)))
            except DialFailed as exc:
                failures.append(exc)
            else:
                name = f"amqp {self._purpose} connection"
                self._task = self._context.tasks.spawn(self._keep(), name=name)
                return
        reason = "; ".join(failure.reason for failure in failures)
        lasting = not any(failure.retryable for failure in failures)
        raise ConnectError(self._options.url, reason, retryable=not lasting)

    async def close(self) -> None:
        """Close for good. Idempotent, legal before `open`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        link, self._link = self._link, None
        self.writable_now = None
        if link is not None:
            await link.close()
        self._problems.clear(self._part)
        self._notify()

    # --- waiting -----------------------------------------------------------------------------

    async def ready(self) -> Link:
        """Wait for a link and return it.

        Raises:
            LinkDown: the connection is closed for good, or was never opened.
        """
        while True:
            if self._task is None:
                raise LinkDown("the adapter is not connected", sent=False)
            if (link := self.link) is not None:
                return link
            await self._changed.wait()

    async def writable(self) -> Link:
        """Wait for a link on which the broker takes publishes; as `ready`."""
        while True:
            link = await self.ready()
            if link.blocked is None:
                return link
            await self._changed.wait()

    # --- supervision -------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[str, str]:
        """What its problems are known as."""
        return self._part, f"{self._part} blocked"

    @property
    def _part(self) -> str:
        return f"{self._purpose} connection"

    async def _keep(self) -> None:
        backoff = Backoff(self._context)
        while True:
            opened = self._context.clock.monotonic()
            await self._until_lost()
            if self._context.clock.monotonic() - opened > _STEADY:
                backoff.reset()
            await self._dial_until_up(backoff)

    async def _until_lost(self) -> None:
        """Wait for the end of the link and clean up after it."""
        link = self._link
        if link is None:
            return
        while link.lost is None:
            await self._changed.wait()
        self._link = None
        self._context.emit(
            "connection.lost", adapter="amqp", purpose=self._purpose, reason=link.lost
        )
        log.warning("%s lost: %s", self._part, link.lost)
        self._problems.report(self._part, "down", f"{self._part} lost: {link.lost}")
        await link.close()

    async def _dial_until_up(self, backoff: Backoff) -> None:
        timeout = self._options.connect_timeout or self._context.connect_timeout
        attempt = 0
        while True:
            if attempt % len(self._hosts) == 0:
                await self._context.clock.sleep(backoff.next())
            host = self._hosts[(self.generation + attempt) % len(self._hosts)]
            attempt += 1
            try:
                link = await self._dial_within(host, timeout)
            except DialFailed as exc:
                detail = f"{self._part} lost, reconnecting: {exc.reason}"
                self._problems.report(self._part, "down", detail)
            else:
                self._up(link)
                return

    async def _dial_within(self, host: Host, timeout: float) -> Link:
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(host)
        except TimeoutError:
            raise DialFailed(f"{host}: no answer within {timeout:.3g} s") from None
        except DialFailed as exc:
            raise DialFailed(f"{host}: {exc.reason}", retryable=exc.retryable) from exc
        except Exception as exc:  # whatever it is, there must be another attempt
            log.exception("dialling %s failed", host)
            raise DialFailed(f"{host}: {exc!r}") from exc

    def _up(self, link: Link) -> None:
        self._link = link
        self.generation += 1
        self._problems.clear(self._part)
        log.info("%s to %s is up", self._part, self._options.url)
        link.on_change(self._link_changed)
        self._context.emit(
            "connection.up", adapter="amqp", purpose=self._purpose, url=self._options.url
        )
        self._link_changed()

    def _link_changed(self) -> None:
        """The link was lost, blocked or unblocked, or is new."""
        link = self.link
        blocked = link is not None and link.blocked is not None
        self.writable_now = None if blocked else link
        part = f"{self._part} blocked"
        if link is not None and blocked and not self._blocked:
            self._context.emit(
                "connection.blocked", adapter="amqp", purpose=self._purpose, reason=link.blocked
            )
            self._problems.report(part, "degraded", f"the broker blocks publishers: {link.blocked}")
        elif self._blocked and not blocked:
            self._context.emit("connection.unblocked", adapter="amqp", purpose=self._purpose)
            self._problems.clear(part)
        self._blocked = blocked
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in tuple(self._listeners):
            listener()
