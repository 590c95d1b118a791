"""The result of a run, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from rich.table import Table

from integration.load.verdict import Verdict

Row = tuple[str, object, bool | None]
"""What, how many, and whether that is as it must be (None: it may be anything)."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Counts of a run.

    Attributes:
        published: publishes that were begun.
        confirmed: those that returned.
        failed: those that raised.
        processed: different tasks that were finished.
        closed_by: what closed the connections.
        connections_lost: how often a process lost the connection that carried its tasks.
        dead: dead letters.
        left: tasks in the queue after the last worker has gone.
        drained_exit: exit code of the worker that was drained under load.
        other_exits: exit codes of those that were stopped at the end.
        verdict: on losses and repeats.
    """

    published: int
    confirmed: int
    failed: int
    processed: int
    closed_by: str
    connections_lost: int
    dead: int
    left: int
    drained_exit: int
    other_exits: list[int]
    verdict: Verdict

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return all(kept is not False for _, _, kept in self.rows())

    def rows(self) -> list[Row]:
        """Return the table."""
        verdict = self.verdict
        return [
            ("published", self.published, None),
            ("publishes that returned", self.confirmed, self.confirmed > 0),
            ("publishes that raised", self.failed, None),
            ("tasks processed", self.processed, None),
            ("lost", len(verdict.lost), not verdict.lost),
            (f"connections lost (closed by {self.closed_by})", self.connections_lost, None),
            ("lost without a fault", len(verdict.unprovoked), not verdict.unprovoked),
            # None at all: the faults have met nobody at work, and the run shows nothing.
            ("tasks that ran more than once", verdict.again, verdict.again > 0),
            *((f"  {kind}", count, None) for kind, count in sorted(verdict.causes.items())),
            ("  unexplained", len(verdict.unexplained), not verdict.unexplained),
            ("  more than a worker may hold", len(verdict.hoarded), not verdict.hoarded),
            ("tasks that finished more than once", verdict.twice, None),
            ("dead letters", self.dead, self.dead == 0),
            ("left in the queue", self.left, self.left == 0),
            ("exit code of the drained worker", self.drained_exit, self.drained_exit == 0),
            ("exit codes of the others", _list(self.other_exits), self.other_exits == [0]),
        ]

    def table(self) -> Table:
        """Return the table for a terminal."""
        return table_of(self.rows())

    def details(self) -> list[str]:
        """Return what is needed to look into a bad run: names of tasks and links."""
        verdict = self.verdict
        named = {
            "lost": verdict.lost,
            "unexplained": verdict.unexplained,
            "hoarded": verdict.hoarded,
            "connections lost without a fault": verdict.unprovoked,
        }
        return [f"{name}: {', '.join(items[:20])}" for name, items in named.items() if items]

    def as_json(self) -> str:
        """Return all of it as one JSON object."""
        return json.dumps({"good": self.good, **dataclasses.asdict(self)}, indent=2)


def table_of(rows: list[Row]) -> Table:
    """Return rows as a table for a terminal."""
    table = Table("", "count", "")
    table.columns[1].justify = "right"
    marks = {None: "", True: "[green]ok", False: "[red]wrong"}
    for what, count, kept in rows:
        table.add_row(what, str(count), marks[kept])
    return table


def _list(items: list[int]) -> str:
    return ", ".join(map(str, items)) or "none"
