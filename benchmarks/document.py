"""Writes the figures of a run into docs/benchmarks.md and docs/benchmarks.svg.

``python benchmarks/document.py FILE`` does it from what ``run.py --json FILE`` has written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import CACHE_TABLES, LIMIT, TABLES, Rounds, Table, ratio, spread
from benchmarks.plot import plot

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- figures: begin -->\n"
END = "<!-- figures: end -->\n"
CACHE_BEGIN = "<!-- figures of caches: begin -->\n"
CACHE_END = "<!-- figures of caches: end -->\n"

Results = dict[str, Any]
"""Of tasks, or of caches."""


def lines(results: Results) -> Iterator[str]:
    """Yield the Markdown of what a run measured on RabbitMQ."""
    yield from _surroundings(results["surroundings"])
    yield from _tables(results, TABLES)
    yield in_order(results)
    yield ""
    yield from _notes(results)


def cache_lines(results: Results) -> Iterator[str]:
    """Yield the Markdown of what a run measured of caches."""
    yield from _surroundings(results["surroundings"])
    yield from _tables(results, CACHE_TABLES)
    yield from _notes(results)


def _tables(results: Results, tables: Sequence[Table]) -> Iterator[str]:
    for table in tables:
        rounds: Rounds = results["samples"].get(table.experiment, {})
        if any(rounds.values()):
            yield f"### {table.title}"
            yield ""
            yield from _rows(table_rows(table, rounds, results["titles"]))
            yield ""


def table_rows(table: Table, rounds: Rounds, titles: dict[str, str]) -> list[list[str]]:
    """Return a table, its head first."""
    first = table.columns[0]
    limited = any(rounds.get(LIMIT, ()))
    yardstick = table.yardstick
    compared = yardstick in rounds
    head = ["", first.head]
    head += [f"x {titles[yardstick]}"] if compared else []
    head += ["of the limit" if table.more_is_better else "x the limit"] if limited else []
    rows = [head + [column.head for column in table.columns[1:]]]
    for peer in rounds:
        value = spread(rounds, peer, first.name)
        if value is None:
            continue
        row = [titles[peer], value.text(first.digits)]
        row += [_times(ratio(rounds, peer, yardstick, first.name))] if compared else []
        if limited:
            part = ratio(rounds, peer, LIMIT, first.name)
            row.append(_percent(part) if table.more_is_better else _times(part))
        for column in table.columns[1:]:
            more = spread(rounds, peer, column.name)
            row.append("" if more is None else more.text(column.digits))
        rows.append(row)
    return rows


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _rows(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    yield f"| {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * (len(head) - 1)}"
    for row in body:
        yield f"| {' | '.join(row)} |"


def _surroundings(around: dict[str, str]) -> Iterator[str]:
    yield "; ".join(f"{name}: {value}" for name, value in around.items()) + "."
    yield ""


def in_order(results: Results) -> str:
    """Return the sentence that says whether every message was accounted for."""
    wrong: dict[str, dict[str, int]] = results["wrong"]
    told = [
        f"{results['titles'][peer]} {count} {what}"
        for peer, counts in wrong.items()
        for what, count in counts.items()
    ]
    if told:
        return f"Not in order after a measurement: {', '.join(told)}."
    return "After every measurement the queue was counted: nothing lost, left or done twice."


def _notes(results: Results) -> Iterator[str]:
    for peer, note in results["notes"].items():
        yield f"- {results['titles'][peer]}: {note}."


def write(results: dict[str, Results], document: Path = DOCUMENT) -> None:
    """Replace what is between the markers of what was measured, and the picture beside it.

    Raises:
        ValueError: the document has no markers.
    """
    text = document.read_text()
    if tasks := results.get("tasks"):
        text = _between(text, BEGIN, END, lines(tasks))
        document.with_suffix(".svg").write_text(plot(tasks["samples"], tasks["titles"]))
    if caches := results.get("caches"):
        text = _between(text, CACHE_BEGIN, CACHE_END, cache_lines(caches))
    document.write_text(text)


def _between(text: str, begin: str, end: str, middle: Iterator[str]) -> str:
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the document has no {begin.strip()} … {end.strip()}")
    return "\n".join([before + begin, *middle, "", end + after])


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()))
