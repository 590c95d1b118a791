"""From single measurements to figures: medians, spreads, ratios, tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.table import Table

from benchmarks.workloads import WORKLOADS, Measurement, Waits

Rounds = Mapping[str, Sequence[Measurement]]
"""The measurements of a workload by peer, one a round."""


def rate(measurement: Measurement) -> float:
    """Messages a second."""
    return measurement.count / measurement.seconds


def cpu(measurement: Measurement) -> float:
    """Microseconds of the client's processor time for a message."""
    return measurement.cpu / measurement.count * 1e6


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, least and greatest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} [{low:,.{digits}f}-{high:,.{digits}f}]"


def ratio(of: Sequence[Measurement], to: Sequence[Measurement]) -> float:
    """Median of the ratios within each round: what disturbs a round disturbs both."""
    return statistics.median(rate(a) / rate(b) for a, b in zip(of, to, strict=True))


def rates_table(workload: str, rounds: Rounds, yardstick: str) -> Table:
    """Return the table of a workload."""
    table = Table("peer", "messages/s", f"x {yardstick}", "CPU us/message")
    table.title = WORKLOADS[workload].title
    table.title_justify = "left"
    for column in table.columns[1:]:
        column.justify = "right"
    for peer, measurements in rounds.items():
        table.add_row(
            peer,
            spread([rate(m) for m in measurements]),
            f"{ratio(measurements, rounds[yardstick]):.2f}" if yardstick in rounds else "",
            spread([cpu(m) for m in measurements]),
        )
    return table


def waits_table(rounds: Mapping[str, Sequence[Waits | None]]) -> Table:
    """Return the table of delays.

    "gone" is when their publisher had disconnected; "in queue" is how many were in the work queue,
    where a worker could take them, before they were due.
    """
    table = Table("peer", "delay s", "late ms", "ran in the order", "gone ms", "in queue")
    table.title = "delayed publish: how late it runs"
    table.title_justify = "left"
    for peer, results in rounds.items():
        waits = [result for result in results if result is not None]
        if not waits:
            table.add_row(peer, "has none")
            continue
        orders = sorted({" ".join(f"{delay:g}" for delay in w.order) for w in waits})
        queued = str(max(w.in_queue for w in waits))
        gone = spread([w.publisher_gone * 1e3 for w in waits])
        for delay in sorted(waits[0].late):
            late = spread([w.late[delay] * 1e3 for w in waits])
            table.add_row(peer, f"{delay:g}", late, "; ".join(orders), gone, queued)
    return table
