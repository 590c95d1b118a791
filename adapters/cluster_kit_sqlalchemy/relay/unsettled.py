"""What became of messages, until that is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit_sqlalchemy.outbox.entries import Entry

Identity = tuple[int, str, float]
"""Position, id, time of creation: a position alone may be used again in a table made anew."""

Outcome = Exception | None
"""Why a message was refused; None when it was confirmed."""


class Unsettled:
    """Outcomes that the database does not know yet, as long as this process lives.

    A database that cannot be written to must not have a message sent again that was confirmed. A
    refusal is that of one attempt: where the row tells of more, it was written down after all.
    """

    def __init__(self) -> None:
        self._outcomes: dict[Identity, tuple[int, Outcome]] = {}  # with the attempts before it

    def __contains__(self, entry: Entry) -> bool:
        found = self._outcomes.get(_identity(entry))
        if found is None:
            return False
        attempts, outcome = found
        return outcome is None or attempts == entry.attempts

    def __getitem__(self, entry: Entry) -> Outcome:
        return self._outcomes[_identity(entry)][1]

    def note(self, entry: Entry, outcome: Outcome) -> None:
        """Remember what became of a message."""
        self._outcomes[_identity(entry)] = entry.attempts, outcome

    def forget(self, entries: Iterable[Entry]) -> None:
        """Forget messages whose outcome is written down."""
        for entry in entries:
            self._outcomes.pop(_identity(entry), None)

    @property
    def positions(self) -> list[int]:
        """Where the messages are, or were when another relay has settled them."""
        return [position for position, _, _ in self._outcomes]

    def keep(self, positions: Iterable[int]) -> None:
        """Forget those that are at none of these positions."""
        kept = set(positions)
        self._outcomes = {each: why for each, why in self._outcomes.items() if each[0] in kept}


def _identity(entry: Entry) -> Identity:
    return entry.position, entry.id, entry.created_at
