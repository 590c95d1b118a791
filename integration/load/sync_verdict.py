"""What became of sync messages, computed from what the instances wrote down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.table import Table

from integration.load.journal import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Of one instance.

    Attributes:
        handled: messages, repeats included.
        repeated: handled before.
        missed: never handled.
        untold: missed, without a call that told of it after what was handled before it.
        ordered: each was first handled after those that were published before it.
        gaps: calls that told of missing messages.
        losses: of connections.
        equal: what it held at the end is what is in the database.
    """

    name: str
    handled: int
    repeated: int
    missed: int
    untold: int
    ordered: bool
    gaps: int
    losses: int
    equal: bool

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.ordered and self.equal and self.untold == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of a run.

    Attributes:
        published: messages whose transaction was committed.
        rolled_back: messages whose transaction was not, and that nobody may have heard.
        heard_of_rolled_back: how many of these somebody heard nevertheless.
        unpublished: committed, and told to be unpublished.
        fates: of the instances.
        exact: gaps must have been told to exactly those that missed something.
    """

    published: int
    rolled_back: int
    heard_of_rolled_back: int
    unpublished: int
    fates: Sequence[Fate] = field(default_factory=list)
    exact: bool = False

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        told = all((fate.gaps > 0) == (fate.missed > 0) for fate in self.fates)
        kept = all(fate.good for fate in self.fates) and bool(self.fates)
        return kept and not self.heard_of_rolled_back and (told or not self.exact)

    def table(self) -> Table:
        """Return it for people."""
        table = Table(
            *("instance", "handled", "repeated", "missed", "untold", "in order", "gaps told"),
            *("connections lost", "equals the database"),
            title=f"{self.published} sync messages published after their commit",
            caption=f"{self.rolled_back} rolled back, of which heard: {self.heard_of_rolled_back}; "
            f"committed and not published: {self.unpublished}",
        )
        for fate in self.fates:
            cells = (fate.handled, fate.repeated, fate.missed, fate.untold, fate.ordered, fate.gaps)
            table.add_row(fate.name, *map(str, (*cells, fate.losses, fate.equal)))
        return table


def fate(
    name: str, records: Sequence[Record], published: Sequence[int], items: dict[str, int]
) -> Fate:
    """Return what became of one instance.

    Args:
        name: of the instance.
        records: that it wrote down, in order.
        published: versions in the order of their commits.
        items: what is in the database.
    """
    own = [record for record in records if record.source == name]
    handled = [int(record.task) for record in own if record.event == "heard"]
    first = list(dict.fromkeys(handled))
    held = [json.loads(record.detail) for record in own if record.event == "holds"]
    return Fate(
        name=name,
        handled=len(handled),
        repeated=len(handled) - len(first),
        missed=len(set(published) - set(first)),
        untold=_untold(own, published),
        ordered=all(before < after for before, after in pairwise(first)),
        gaps=sum(record.event == "gap" for record in own),
        losses=sum(record.event == "connection.lost" for record in own),
        equal=held == [items],
    )


def _untold(own: Sequence[Record], published: Sequence[int]) -> int:
    """Return how many were missed with no gap told later than what was handled before them."""
    first: dict[int, int] = {}  # place in the journal, by version
    last_gap = -1
    for place, record in enumerate(own):
        if record.event == "heard":
            first.setdefault(int(record.task), place)
        elif record.event == "gap":
            last_gap = place
    untold, before = 0, -1
    for version in published:
        if version in first:
            before = max(before, first[version])
        else:
            untold += last_gap <= before
    return untold
