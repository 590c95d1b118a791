"""Writes down what became of messages."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster_kit.errors import MessageError, PublishUnconfirmed

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from cluster_kit.ports import AdapterContext
    from cluster_kit.retry import RetryPolicy
    from cluster_kit_sqlalchemy.outbox.entries import Entry
    from cluster_kit_sqlalchemy.outbox.store import Store
    from cluster_kit_sqlalchemy.relay.delivery import Results

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to become of a message that was not confirmed.

    Attributes:
        entry: the message, this attempt included.
        attempt: number of this attempt; one that got no answer does not count for the next.
        error: why.
        delay: seconds until it is tried again; None when it is given up.
    """

    entry: Entry
    attempt: int
    error: str
    delay: float | None


class Settler:
    """Decides about messages and carries it out.

    Args:
        store: of the messages.
        policy: when a refused message is tried again.
        max_retries: after the first attempt, before it is given up.
        context: of the instance.
    """

    def __init__(
        self, store: Store, policy: RetryPolicy, max_retries: int, context: AdapterContext
    ) -> None:
        self._store = store
        self._policy = policy
        self._max_retries = max_retries
        self._context = context

    def judge(self, results: Results) -> list[Verdict]:
        """Decide about those that were not confirmed."""
        return [self._verdict(entry, error) for entry, error in results.refused]

    def _verdict(self, entry: Entry, error: Exception) -> Verdict:
        attempt, unknown = entry.attempts + 1, isinstance(error, PublishUnconfirmed)
        tried = replace(
            entry,
            # An attempt without an answer is none that was refused: no reason to give it up.
            attempts=entry.attempts if unknown else attempt,
            unconfirmed=entry.unconfirmed or unknown,
        )
        hopeless = isinstance(error, MessageError) or attempt > self._max_retries
        delay = None if hopeless and not unknown else self._policy.delay(attempt)
        text = f"{type(error).__name__}: {error}"
        return Verdict(entry=tried, attempt=attempt, error=text, delay=delay)

    async def write(
        self, connection: AsyncConnection, results: Results, verdicts: list[Verdict]
    ) -> None:
        """Carry it out in the transaction of `connection`. May be repeated."""
        now = self._context.clock.wall()
        await self._store.remove(connection, [entry.position for entry in results.sent])
        for verdict in verdicts:
            if verdict.delay is None:
                await self._store.give_up(connection, verdict.entry, now, verdict.error)
            else:
                retry_at = now + verdict.delay
                await self._store.postpone(connection, verdict.entry, retry_at, verdict.error)

    def report(self, results: Results, verdicts: list[Verdict]) -> None:
        """Tell telemetry and the log what was carried out."""
        now = self._context.clock.wall()
        for entry in results.sent:
            self._context.emit(
                "outbox.sent",
                kind=entry.kind,
                channel=entry.channel,
                id=entry.id,
                key=entry.key,
                seconds=now - entry.created_at,
            )
        for verdict in verdicts:
            if verdict.delay is None:
                self._report_given_up(verdict)
            else:
                self._report_retried(verdict)

    def _report_retried(self, verdict: Verdict) -> None:
        entry = verdict.entry
        self._context.emit(
            "outbox.retried",
            kind=entry.kind,
            channel=entry.channel,
            id=entry.id,
            key=entry.key,
            attempt=verdict.attempt,
            delay=verdict.delay,
            error=verdict.error,
        )

    def _report_given_up(self, verdict: Verdict) -> None:
        entry = verdict.entry
        log.error(
            "outbox: %s %s for %s is given up after attempt %d, and kept as failed%s: %s",
            *(entry.kind, entry.id, entry.channel, verdict.attempt),
            "; it may have arrived, as an attempt got no answer" if entry.unconfirmed else "",
            verdict.error,
        )
        self._context.emit(
            "outbox.failed",
            kind=entry.kind,
            channel=entry.channel,
            id=entry.id,
            key=entry.key,
            attempt=verdict.attempt,
            unconfirmed=entry.unconfirmed,
            error=verdict.error,
        )
