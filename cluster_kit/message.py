"""What travels, what a handler sees, and what a handler may answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.pickling import reduced

if TYPE_CHECKING:
    from datetime import datetime

    from cluster_kit.names import QueueName

Headers = Mapping[str, object]
"""User headers. A publisher may send str, int (64 bit), bool and None; foreign ones vary."""

RESERVED_HEADERS = ("ck-", "x-")
"""How names of headers begin that are the library's or a broker's, never a user's."""

ROUTING_HEADERS = ("CC", "BCC")
"""Headers that RabbitMQ routes by: it sends a message to the channels listed there, too."""

MAX_RETRIES = 1_000_000
"""Largest legal `max_retries`."""


# --- a handler's answers ---------------------------------------------------------------------


class HandlerAnswer(Exception):  # noqa: N818 - an answer, not an error
    """Base of what a handler may raise to say what is to become of its task."""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


class Retry(HandlerAnswer):
    """This attempt failed; try again, while the task has retries left.

    Args:
        delay: seconds until the next attempt; None leaves it to the retry policy.
        reason: kept in the dead letter when no retry is left.
    """

    def __init__(self, delay: Duration | None = None, reason: str = "") -> None:
        self.delay: float | None = (
            None if delay is None else seconds("delay", delay, limit=MAX_WAIT)
        )
        self.reason: str = str(reason)
        super().__init__(self.reason or "the handler asked for a retry")


class Snooze(HandlerAnswer):
    """Not now: run the task again after `delay` seconds. No failure, uses no attempt."""

    def __init__(self, delay: Duration) -> None:
        self.delay: float = seconds("delay", delay, limit=MAX_WAIT)
        super().__init__(f"snoozed for {self.delay:g} s")


class Reject(HandlerAnswer):
    """Never try again: the task goes to the dead letters now, with `reason`."""

    def __init__(self, reason: str = "") -> None:
        self.reason: str = str(reason)
        super().__init__(self.reason or "the handler rejected the task")


# --- on the way ------------------------------------------------------------------------------


class DeadReason(StrEnum):
    """Why a task is a dead letter."""

    FAILED = "failed"
    """Its retries are used up, or its error is one that is not retried."""
    EXPIRED = "expired"
    """Its ttl ended before a handler took it."""
    REJECTED = "rejected"
    """A handler raised `Reject`."""
    UNDECODABLE = "undecodable"
    """The body is not what the content type or the handler's annotation says."""
    CRASHED = "crashed"
    """It was delivered too often without any outcome: it most likely kills its workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a task ended as a dead letter. `died_at` is in seconds since 1970."""

    reason: DeadReason
    error_type: str = ""
    error_text: str = ""
    instance_id: str = ""
    died_at: float | None = None


@dataclass(slots=True, kw_only=True)  # frozen ones take three times as long to make
class Envelope:
    """One task as it travels between a service and an adapter. Nobody changes it once made.

    Attributes:
        queue: where it belongs.
        id: the message id users see; the same through retries, redelivery and replay.
        id_is_stable: False for what came from a foreign publisher without an id, and has the one
            it was given by this delivery alone.
        body: the encoded payload, exactly as published.
        content_type: of the body; None when a foreign publisher did not say.
        published_at: seconds since 1970; None when unknown.
        attempt: the number of the coming run, from 1.
        max_retries: of this message; None leaves it to the subscription.
        timeout: seconds for each run; None leaves it to the subscription.
        expires_at: seconds since 1970 after which it must not be run any more.
        crashes: deliveries of earlier copies that ended without an outcome.
        origin: instance that published it.
        headers: the user's, without any of the library's or the broker's.
        death: set while it is a dead letter.
    """

    queue: QueueName
    id: str
    body: bytes
    content_type: str | None = None
    published_at: float | None = None
    attempt: int = 1
    max_retries: int | None = None
    timeout: float | None = None
    expires_at: float | None = None
    crashes: int = 0
    origin: str = ""
    headers: Headers = field(default_factory=dict[str, object])
    death: Death | None = None
    id_is_stable: bool = True


# --- what a handler sees ---------------------------------------------------------------------


class AbortSignal:
    """Tells a running handler that it should stop. Safe to read from any thread."""

    __slots__ = ("_reason", "_threads", "_waiters")

    def __init__(self) -> None:
        self._reason = ""
        self._waiters: list[asyncio.Future[None]] = []
        self._threads: list[threading.Event] = []  # one each: most runs never wait for any

    @property
    def aborted(self) -> bool:
        """Whether the handler was asked to stop."""
        return self._reason != ""

    @property
    def reason(self) -> str:
        """``timeout``, ``shutdown`` or ``cancelled``; empty while not aborted."""
        return self._reason

    async def wait(self) -> str:
        """Wait until the handler is asked to stop and return the reason. On the event loop."""
        if not self.aborted:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        return self._reason

    def wait_in_thread(self, timeout: float | None = None) -> bool:
        """Block this thread until asked to stop, at most `timeout` seconds; return `aborted`."""
        event = threading.Event()
        self._threads.append(event)
        try:
            # In this order: an abort at any moment is seen here or finds the event.
            return self.aborted or event.wait(timeout)
        finally:
            self._threads.remove(event)

    def raise_if_aborted(self) -> None:
        """Raise `asyncio.CancelledError` when the handler was asked to stop."""
        if self.aborted:
            raise asyncio.CancelledError(self._reason)

    def abort(self, reason: str) -> None:
        """Ask the handler to stop; the first reason stays. Called on the event loop only."""
        if self.aborted:
            return
        self._reason = reason
        for event in tuple(self._threads):
            event.set()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a handler may know about the task it runs.

    Attributes:
        id: message id, the same in every attempt; the key for idempotent effects.
        channel: name without the app prefix.
        attempt: number of this run, from 1; redeliveries without outcome do not count.
        max_retries: failed attempts after the first before the task is a dead letter.
        published_at: aware UTC time; None when a foreign publisher did not say.
        deadline: aware UTC time at which this run is cancelled.
        headers: the publisher's.
        redelivered: an earlier delivery ended without an outcome (a worker died, a link broke),
            so this run may repeat effects of that one.
        signal: set when the run should stop.
        id_is_stable: whether `id` is the same at every delivery. Not so when a foreign publisher
            gave none: should this delivery end without an outcome, the next has another id.
    """

    id: str
    channel: str
    attempt: int
    max_retries: int
    published_at: datetime | None
    deadline: datetime
    headers: Headers
    redelivered: bool
    signal: AbortSignal
    id_is_stable: bool = True

    @property
    def retried(self) -> int:
        """Number of earlier failed attempts."""
        return self.attempt - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A task that will not run again by itself. Times are aware UTC, None when unknown.

    `payload` is the decoded body, or None where it cannot be decoded; `body` has the bytes.
    `attempts` is how often the handler ran and failed.
    """

    id: str
    channel: str
    reason: DeadReason
    error_type: str
    error_text: str
    attempts: int
    payload: object
    body: bytes
    headers: Headers
    published_at: datetime | None
    died_at: datetime | None
    instance_id: str
