"""The relay of one instance: turn after turn, through losses of database and broker."""

from __future__ import annotations

import asyncio
import heapq
import logging
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from cluster_kit.errors import ConfigurationError
from cluster_kit.ports import Health
from cluster_kit_sqlalchemy.relay.bell import Bell
from cluster_kit_sqlalchemy.relay.delivery import Delivery
from cluster_kit_sqlalchemy.relay.listening import listen
from cluster_kit_sqlalchemy.relay.settling import Settler
from cluster_kit_sqlalchemy.relay.turns import DATABASE_SECONDS, Work, turns_for
from cluster_kit_sqlalchemy.relay.unsettled import Unsettled
from cluster_kit_sqlalchemy.schema import lacking_told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from cluster_kit.ports import AdapterContext, HealthStatus, Outlets
    from cluster_kit.retry import RetryPolicy
    from cluster_kit_sqlalchemy.outbox.store import Depth, Store
    from cluster_kit_sqlalchemy.relay.delivery import Results

log = logging.getLogger(__name__)

REPORT_EVERY = 15.0
"""Seconds between two counts of what is in the outbox."""

LATE = 60.0
"""Seconds after its publishing in which a message is to be sent; beyond them health tells."""

_CANCEL_SECONDS = 1.0
_SOON = 1.0
_LOOK_AGAIN = (0.005, 0.02, 0.1, 0.3)  # after a bell, which may come before the commit is done
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_JITTER = 0.2
_SLACK = 0.01  # beyond the time at which a message is due, by another clock
_REST = 9  # times as long as the last look took, before the next that nothing asks for
_MOST_REST = 10.0
_EXPECTED = (SQLAlchemyError, ConfigurationError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a relay works. Durations are seconds.

    Attributes:
        batch_size: most messages of one turn.
        poll_interval: between two looks when nothing wakes it.
        retry: when a refused message is tried again.
        max_retries: after the first attempt, before it is given up.
        listen: whether it is woken by other processes, where the database can.
    """

    batch_size: int
    poll_interval: float
    retry: RetryPolicy
    max_retries: int
    listen: bool


@dataclass(slots=True)
class Counts:
    """What the relays of an instance have done, from start to start.

    Attributes:
        sent: messages.
        refused: attempts that failed.
        lag: seconds from the publishing to the sending of the last message; None before it.
    """

    sent: int = 0
    refused: int = 0
    lag: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What outlasts the relays of an instance.

    Attributes:
        counts: what they have done.
        unsettled: what became of messages and is not written down yet.
    """

    counts: Counts = field(default_factory=Counts)
    unsettled: Unsettled = field(default_factory=Unsettled)


class Relay:
    """Sends what is in an outbox, as long as it runs.

    Args:
        engine: of the database.
        store: has the messages.
        outlets: sends them.
        terms: how.
        past: what relays of this process have done before it.
        context: of the instance.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        store: Store,
        outlets: Outlets,
        terms: Terms,
        past: Past,
        context: AdapterContext,
    ) -> None:
        self._engine = engine
        self._store = store
        self._terms = terms
        self._counts = past.counts
        self._unsettled = past.unsettled
        self._context = context
        self._turns = turns_for(engine, store)
        self._bell = Bell()
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._troubles = 0
        self._took = 0.0
        self._counted_at: float | None = None
        self._count_soon = False
        self._retries: list[float] = []  # when messages are to be tried again; a heap
        self._health: dict[str, Health] = {}
        self._since = context.clock.wall()
        self._work = Work(
            engine=engine,
            store=store,
            batch_size=terms.batch_size,
            context=context,
            settler=Settler(store, terms.retry, terms.max_retries, context),
            unsettled=past.unsettled,
            deliver=Delivery(outlets, past.unsettled, context, lambda: self._ending).deliver,
        )

    def start(self) -> None:
        """Begin."""
        spawn = self._context.tasks.spawn
        self._tasks = [spawn(self._run(), name="outbox relay")]
        if self._terms.listen:
            listening = listen(self._engine, self._store, self._bell.ring, self._context.clock)
            self._tasks.append(spawn(listening, name="outbox listener"))

    async def stop(self, grace: float) -> None:
        """End: what is under way may end well for `grace` seconds, then it is cancelled."""
        self._ending = True
        self._bell.ring()
        tasks, self._tasks = self._tasks, []
        for listener in tasks[1:]:
            listener.cancel()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            task.cancel()
        if late:
            # A database that does not answer may keep a task from ending; the supervisor tells.
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    @property
    def running(self) -> bool:
        """Whether it sends what is stored from now on."""
        return bool(self._tasks) and not self._ending

    def wake(self) -> None:
        """Have it look soon. From any thread."""
        self._bell.ring()

    def health(self) -> Health:
        """Return the state as known now: the worst there is."""
        for part in ("database", "broker", "locked", "late", "failed"):
            if (found := self._health.get(part)) is not None:
                return found
        return Health(status="ok", detail="relaying", since=self._since)

    # --- inside --------------------------------------------------------------------------

    async def _run(self) -> None:
        waits = self._idle_waits()
        clock = self._context.clock
        while not self._ending:
            began = clock.monotonic()
            while self._retries and self._retries[0] <= began:
                heapq.heappop(self._retries)  # this look finds them; one due after it began may not
            try:
                with lacking_told(self._store.table):
                    results = await self._turns.take(self._work)
                self._took = clock.monotonic() - began
                self._note(results)
                await self._count_when_due()
            except Exception as exc:  # noqa: BLE001 - whatever it is, what is stored must be sent
                await self._bear(exc)
                continue
            self._troubles = 0 if results.outage is None else self._troubles
            self._set("database", "")
            if results.outage is not None:
                await self._pause()
            elif results.sent or results.refused:  # what is behind it may be due
                waits = self._idle_waits()
            elif await self._bell.wait(self._until_retry(next(waits))):
                waits = self._idle_waits(woken=True)

    def _idle_waits(self, *, woken: bool = False) -> Iterator[float]:
        """Yield how long to wait while there is nothing to be sent."""
        return chain(_LOOK_AGAIN if woken else (), (self._poll() for _ in repeat(None)))

    def _until_retry(self, wait: float) -> float:
        """Return `wait`, or less where a message is to be tried again before."""
        left = self._retries[0] - self._context.clock.monotonic() if self._retries else wait
        return max(0.0, min(wait, left))

    def _poll(self) -> float:
        # Many messages behind one that waits are read through at each look.
        interval = max(self._terms.poll_interval, min(_REST * self._took, _MOST_REST))
        return interval * (1 + _JITTER * self._context.random.uniform(-1, 1))

    def _note(self, results: Results) -> None:
        counts = self._counts
        counts.sent += len(results.sent)
        counts.refused += len(results.refused)
        if results.sent:
            counts.lag = self._context.clock.wall() - results.sent[-1].created_at
        later = self._context.clock.monotonic() + _SLACK
        for delay in results.delays:
            heapq.heappush(self._retries, later + delay)
        locked = f"{len(results.locked)} keys wait for a row that another transaction has locked"
        self._set("locked", locked if results.locked else "")
        outage = results.outage
        self._set("broker", "" if outage is None else f"nothing can be sent: {outage}")
        self._count_soon = self._count_soon or bool(results.refused)  # some may be given up

    async def _bear(self, error: Exception) -> None:
        """Report what went wrong in the database, and wait."""
        first = "database" not in self._health
        text = str(error).splitlines()[0] if str(error) else ""
        if not isinstance(error, ConfigurationError):
            text = f"{type(error).__name__}: {text}"
        self._set("database", f"the database failed: {text}", "down")
        if first:
            unexpected = None if isinstance(error, _EXPECTED) else error
            log.warning("outbox relay: %s; trying again", text, exc_info=unexpected)
            self._context.emit("outbox.database_lost", error=text)
        await self._pause()

    async def _pause(self) -> None:
        delay = _BACKOFF[min(self._troubles, len(_BACKOFF) - 1)]
        self._troubles += 1
        varied = delay * (1 + _JITTER * self._context.random.uniform(-1, 1))
        until = self._context.clock.monotonic() + varied
        # Messages go on being stored meanwhile; only a stop ends the wait.
        while not self._ending and (left := until - self._context.clock.monotonic()) > 0:
            await self._bell.wait(left)

    def _set(self, part: str, detail: str, status: HealthStatus = "degraded") -> None:
        if not detail:
            if self._health.pop(part, None) is None:
                return
            self._since = self._context.clock.wall()
            if part == "database":
                self._context.emit("outbox.database_back")
            return
        known = self._health.get(part)
        since = self._context.clock.wall() if known is None else known.since
        self._health[part] = Health(status=status, detail=detail, since=since)

    async def _count_when_due(self) -> None:
        now = self._context.clock.monotonic()
        wait = _SOON if self._count_soon else REPORT_EVERY
        if self._counted_at is not None and now < self._counted_at + wait:
            return
        # Also where it fails: sending matters more.
        self._counted_at, self._count_soon = now, False
        async with asyncio.timeout(DATABASE_SECONDS), self._engine.connect() as connection:
            depth = await self._store.depth(connection)
            due = await self._store.oldest(connection, self._context.clock.wall())
            positions = self._unsettled.positions
            if positions:  # some may be written down: by another relay, or here after all
                self._unsettled.keep(await self._store.pending(connection, positions))
        self._report(depth, due)

    def _report(self, depth: Depth, due: float | None) -> None:
        wall = self._context.clock.wall()
        self._set("failed", f"{depth.failed} messages are given up" if depth.failed else "")
        waits = 0.0 if due is None else wall - due
        late = f"a message that is due waits since {waits:.0f} s: there are many, or a relay hangs"
        self._set("late", late if waits > LATE else "")
        self._context.emit(
            "outbox.depth",
            pending=depth.pending,
            failed=depth.failed,
            oldest=None if depth.oldest is None else max(0.0, wall - depth.oldest),
            lag=self._counts.lag,
        )
