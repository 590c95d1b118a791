"""Sends messages: those of a key one after the other, keys side by side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectError, ConnectionLost, NotStartedError, PublishBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster_kit.ports import AdapterContext, Outlets
    from cluster_kit_sqlalchemy.outbox.entries import Entry
    from cluster_kit_sqlalchemy.relay.unsettled import Unsettled

TURN_SECONDS = 5.0
"""Seconds after which a turn begins no further send, so that what is confirmed gets settled."""

_OUTAGES = (ConnectionLost, ConnectError, NotStartedError, PublishBlocked)
"""Errors that say nothing about the message."""


@dataclass(slots=True)
class Results:
    """What became of messages. Of those in none of these, none was tried.

    Attributes:
        sent: confirmed, in their order.
        refused: each with its error, or without an answer; what its key has behind it was not
            tried.
        outage: why nothing can be sent now.
        locked: keys that wait because somebody else has locked their next message.
        delays: seconds until those that were refused are tried again.
    """

    sent: list[Entry] = field(default_factory=list["Entry"])
    refused: list[tuple[Entry, Exception]] = field(default_factory=list[tuple["Entry", Exception]])
    outage: Exception | None = None
    locked: frozenset[str] = frozenset()
    delays: list[float] = field(default_factory=list[float])


class Delivery:
    """Sends through the outlets of an instance.

    Args:
        outlets: of the instance.
        unsettled: remembers what became of messages.
        context: of the instance.
        ending: whether nothing new is to be begun.
    """

    def __init__(
        self,
        outlets: Outlets,
        unsettled: Unsettled,
        context: AdapterContext,
        ending: Callable[[], bool],
    ) -> None:
        self._outlets = outlets
        self._unsettled = unsettled
        self._context = context
        self._ending = ending

    async def deliver(self, entries: Sequence[Entry]) -> Results:
        """Send, in the order given as far as the key is the same.

        What is known already is not sent again, and nothing is sent beside it: while it cannot be
        written down, neither could the rest.

        The next of a key is sent when the one before it is confirmed: were both under way, a
        refusal of the first would change their order. What is not begun in time is left for the
        next turn: while the broker is slow, the turn must not grow with the number of messages.
        """
        chains: dict[str, list[Entry]] = {}
        for entry in entries:
            chains.setdefault(entry.key, []).append(entry)
        results = Results()
        known = [entry for entry in entries if entry in self._unsettled]
        if known:
            for entry in known:
                self._sort(entry, results)
            return results
        until = self._context.clock.monotonic() + TURN_SECONDS
        spawn = self._context.tasks.spawn
        tasks = [
            spawn(self._send_all(chain, until, results), name=f"outbox of {key}")
            for key, chain in chains.items()
        ]
        if not tasks:
            return results
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        return results

    async def _send_all(self, chain: Sequence[Entry], until: float, results: Results) -> None:
        for entry in chain:
            late = self._context.clock.monotonic() >= until
            if late or self._ending() or results.outage is not None:
                return
            try:
                await self._send(entry)
            except _OUTAGES as exc:
                results.outage = exc
                return
            except Exception as exc:  # noqa: BLE001 - kept with the message, which is not lost
                self._unsettled.note(entry, exc)
                self._sort(entry, results)
                return
            self._unsettled.note(entry, None)
            self._sort(entry, results)

    def _sort(self, entry: Entry, results: Results) -> None:
        if (error := self._unsettled[entry]) is None:
            results.sent.append(entry)
        else:
            results.refused.append((entry, error))

    async def _send(self, entry: Entry) -> None:
        outlets = self._outlets
        entry.check_lane()
        if entry.kind == "task":
            envelope, delay = entry.task(outlets.app, self._context.clock.wall())
            await outlets.tasks.send(envelope, delay)
            return
        realms = {"sync": outlets.sync_messages, "pubsub": outlets.pubsub}
        if (realm := realms.get(entry.kind)) is None:  # of a newer version, or of somebody else
            raise entry.spoilt(f"of unknown kind {entry.kind!r}")
        await realm.send(entry.broadcast())
