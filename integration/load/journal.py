"""What each process of a load run writes down as it happens, and reading it back.

One file per process, one line per event: time, event, task, detail. Times are those of the
machine's monotonic clock, so that the files of all processes can be compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".journal"


@dataclass(frozen=True, slots=True)
class Record:
    """One line. `source` is the process that wrote it."""

    source: str
    at: float
    event: str
    task: str = ""
    detail: str = ""


class Journal:
    """Appends records. Every line is handed to the system at once, so that it outlives SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: str, task: str = "", detail: object = "") -> float:
        """Append a record and return its time."""
        at = time.monotonic()
        plain = str(detail).replace("\t", " ").replace("\n", " ")
        os.write(self._file, f"{at:.6f}\t{event}\t{task}\t{plain}\n".encode())
        return at

    def observe(self, event: str, fields: Mapping[str, object]) -> None:
        """Append an event of the library's telemetry."""
        why = fields.get("reason", fields.get("why", ""))
        detail = f"{fields.get('purpose', '')} {why}".strip()
        self.write(event, str(fields.get("id", "")), detail)

    def close(self) -> None:
        os.close(self._file)


def path_of(folder: Path, source: str) -> Path:
    return folder / f"{source}{SUFFIX}"


def read(folder: Path) -> list[Record]:
    """Return the records of all processes in the order of their times."""
    records = [record for path in folder.glob(f"*{SUFFIX}") for record in _lines(path)]
    return sorted(records, key=lambda record: record.at)


def _lines(path: Path) -> Iterator[Record]:
    text = path.read_text()
    # A line that is being written right now has no end yet.
    for line in text[: text.rfind("\n") + 1].splitlines():
        at, event, task, detail = line.split("\t")
        yield Record(path.stem, float(at), event, task, detail)
