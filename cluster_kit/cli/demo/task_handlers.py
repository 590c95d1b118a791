"""What every instance of the demo does with tasks: one channel for each promise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel

from cluster_kit.clock import SystemClock
from cluster_kit.message import Delivery, Reject, Snooze
from cluster_kit.retry import RetryPolicy

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Order, Reporter
    from cluster_kit.cluster import Cluster

SHARE, ORDER, RETRY, TIMEOUT, EXPIRE = "share", "order", "retry", "timeout", "expire"
FAIL, REJECT, SNOOZE, INVALID, CRASH, KILL, DRAIN = (
    "fail",
    "reject",
    "snooze",
    "invalid",
    "crash",
    "kill",
    "drain",
)
CHANNELS = (SHARE, ORDER, RETRY, TIMEOUT, EXPIRE, FAIL, REJECT, SNOOZE, INVALID, CRASH, KILL, DRAIN)

BACKOFF = RetryPolicy(initial_delay=0.2, factor=2.0, jitter=0.0)
NAP = 0.3
"""Seconds a snoozing task asks for."""

CRASH_LIMIT = 2
"""Redeliveries without an outcome a task of the demo may have."""

Handler = Callable[[Delivery], Awaitable[None]]
Observed = Callable[[object, Delivery], Awaitable[None]]


class Purchase(BaseModel):
    """The payload of the channel whose payloads are validated."""

    number: int


class TaskHandlers:
    """The handlers of one instance, each of which reports what it sees.

    Attributes:
        orders: see `cluster_kit.cli.demo.workload.Part`.

    Args:
        cluster: where they are subscribed.
        reporter: takes what they see.
        die: lets this instance die at once, without a word.
    """

    def __init__(self, cluster: Cluster, reporter: Reporter, die: Callable[[], None]) -> None:
        self.orders: Mapping[str, Order] = {"fix": self._fix}
        self._queue = cluster.event_queue
        self._reporter = reporter
        self._die = die
        self._clock = SystemClock()
        self._fixed = False

    async def prepare(self) -> None:
        """Subscribe."""
        queue = self._queue
        queue.subscribe(SHARE, self._observed(self._work))
        queue.subscribe(ORDER, self._observed(self._nothing), concurrency=10)
        queue.subscribe(RETRY, self._observed(self._flaky), retry=BACKOFF)
        queue.subscribe(TIMEOUT, self._observed(self._hang))
        queue.subscribe(EXPIRE, self._observed(self._nothing), idle=lambda: False)
        queue.subscribe(FAIL, self._observed(self._until_fixed), retry=BACKOFF)
        queue.subscribe(REJECT, self._observed(self._reject))
        queue.subscribe(SNOOZE, self._observed(self._snooze))
        queue.subscribe(INVALID, self._typed)
        queue.subscribe(CRASH, self._observed(self._hang_once))
        queue.subscribe(KILL, self._observed(self._kill))
        queue.subscribe(DRAIN, self._observed(self._work_long))

    async def _fix(self, _about: Mapping[str, object]) -> None:
        """Repair the handler of `FAIL`, as the deployment of a fix would."""
        self._fixed = True
        self._reporter.note("fixed")

    def _observed(self, handler: Handler) -> Observed:
        async def observed(_payload: object, delivery: Delivery) -> None:
            see = self._reporter.see
            see("run", delivery)
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                see("cancelled", delivery, delivery.signal.reason)
                raise
            except Exception as exc:
                see("failed", delivery, type(exc).__name__)
                raise
            see("done", delivery)

        return observed

    # --- the handlers ------------------------------------------------------------------------

    async def _nothing(self, _delivery: Delivery) -> None: ...

    async def _work(self, _delivery: Delivery) -> None:
        await asyncio.sleep(0.03)

    async def _work_long(self, _delivery: Delivery) -> None:
        await asyncio.sleep(0.5)

    async def _flaky(self, delivery: Delivery) -> None:
        if delivery.attempt < 3:  # noqa: PLR2004 - the third attempt succeeds
            text = "the mail server does not answer"
            raise ConnectionError(text)

    async def _hang(self, _delivery: Delivery) -> None:
        await asyncio.Event().wait()

    async def _hang_once(self, delivery: Delivery) -> None:
        if not delivery.redelivered:
            await asyncio.Event().wait()

    async def _kill(self, _delivery: Delivery) -> None:
        self._die()
        await asyncio.Event().wait()  # where a process survives, nothing more is heard of this

    async def _until_fixed(self, _delivery: Delivery) -> None:
        if not self._fixed:
            text = "there is no such template"
            raise LookupError(text)

    async def _reject(self, _delivery: Delivery) -> None:
        raise Reject("this customer has left")

    async def _snooze(self, delivery: Delivery) -> None:
        published = delivery.published_at
        if published is None or self._clock.wall() < published.timestamp() + 2 * NAP:
            raise Snooze(NAP)

    async def _typed(self, payload: Purchase, delivery: Delivery) -> None:
        await self._observed(self._nothing)(payload, delivery)
