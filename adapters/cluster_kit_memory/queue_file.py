"""The file behind a hub: one SQLite database, used by one hub of one process at a time.

SQLite, because it survives being killed at any moment, and locks its file on every system. The
file must be on a local disk: locks of network file systems cannot be trusted.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from cluster_kit_memory.records import decode_envelope, decode_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cluster_kit.message import Envelope
    from cluster_kit.names import QueueName

APPLICATION_ID = 0x434B4D51
"""Marks the file as ours ("CKMQ"), in the header of the database."""

FORMAT = 1
"""Version of the tables below."""

_TABLES = (
    "CREATE TABLE queues (name TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE tasks (
        id INTEGER PRIMARY KEY,
        state INTEGER NOT NULL,
        position INTEGER NOT NULL,
        due REAL NOT NULL,
        redeliveries INTEGER NOT NULL,
        copy_id TEXT NOT NULL,
        envelope TEXT NOT NULL,
        body BLOB NOT NULL
    )""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)


class State(IntEnum):
    """Where a task is. The numbers are those in the file."""

    READY = 0
    DELIVERED = 1
    WAITING = 2
    DEAD = 3


class QueueFileError(Exception):
    """The file cannot be used; the text says why. `passing` tells whether waiting may help."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Row:
    """A task as kept. `due` is in seconds since 1970 and matters in state WAITING."""

    id: int
    state: State
    position: int
    due: float
    redeliveries: int
    copy_id: str
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything in a file; rows by position."""

    queues: list[QueueName]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Change:
    """One statement. Of those with one `key` that failed, only the last need be repeated."""

    key: int | str
    sql: str
    values: tuple[object, ...]

    @classmethod
    def insert(cls, row: Row, text: str) -> Change:
        """Keep a new task whose envelope is `text`."""
        sql = "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        place = (row.id, int(row.state), row.position, row.due, row.redeliveries)
        return cls(row.id, sql, (*place, row.copy_id, text, row.envelope.body))

    @classmethod
    def move(cls, row: int, state: State, position: int, redeliveries: int) -> Change:
        """Note where a task is."""
        sql = "UPDATE tasks SET state = ?, position = ?, redeliveries = ? WHERE id = ?"
        return cls(row, sql, (int(state), position, redeliveries, row))

    @classmethod
    def bury(cls, row: int, position: int, redeliveries: int, text: str) -> Change:
        """Make a task a dead letter whose envelope is `text`."""
        sql = (
            "UPDATE tasks SET state = ?, position = ?, redeliveries = ?, envelope = ? WHERE id = ?"
        )
        return cls(row, sql, (int(State.DEAD), position, redeliveries, text, row))

    @classmethod
    def delete(cls, row: int) -> Change:
        """Forget a task."""
        return cls(row, "DELETE FROM tasks WHERE id = ?", (row,))

    @classmethod
    def name_queue(cls, text: str) -> Change:
        """Keep a queue's name."""
        return cls(text, "INSERT OR IGNORE INTO queues VALUES (?)", (text,))


class QueueFile:
    """Reads and writes the file. Blocking; all calls come from one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._base: sqlite3.Connection | None = None

    def open(self) -> Contents:
        """Lock the file, making it if need be, and return what is in it.

        A file that is not ours or is damaged is left as it was.

        Raises:
            QueueFileError: used by somebody else, not readable, damaged, not ours.
        """
        base: sqlite3.Connection | None = None
        try:
            self._make()
            base = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            contents = _lock_and_read(base)
        except (sqlite3.Error, OSError, TypeError, ValueError, QueueFileError) as exc:
            if base is not None:
                base.close()
            raise self._explain(exc) from exc
        self._base = base
        return contents

    def _make(self) -> None:
        # Tasks may hold anything: for the owner's eyes only. An existing file is not opened here,
        # since closing it again would end SQLite's locks on it in this process.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def _explain(self, exc: Exception) -> QueueFileError:
        if isinstance(exc, QueueFileError):
            return QueueFileError(f"{self._path} {exc}", passing=exc.passing)
        if _is_busy(exc):
            text = f"{self._path} is in use by another process"
            return QueueFileError(text, passing=True)
        if isinstance(exc, sqlite3.OperationalError | OSError):
            reason = exc.strerror if isinstance(exc, OSError) else exc
            return QueueFileError(f"{self._path} cannot be opened: {reason}")
        return QueueFileError(f"{self._path} is damaged or no queue file, and is left alone: {exc}")

    def write(self, changes: Sequence[Change], *, durable: bool) -> Exception | None:
        """Write all of `changes` or none; return the error when it was none.

        Args:
            changes: in order.
            durable: whether they must outlive a loss of power, not only the end of the process.
        """
        if self._base is None:
            return QueueFileError(f"{self._path} is closed")
        try:
            self._base.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._base.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._base.execute(change.sql, change.values)
            self._base.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as exc:
            with suppress(sqlite3.Error):  # some failures have rolled back by themselves
                self._base.execute("ROLLBACK")
            return exc
        return None

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._base is not None:
            self._base.close()
            self._base = None


def _is_busy(exc: Exception) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }


def _lock_and_read(base: sqlite3.Connection) -> Contents:
    base.execute("PRAGMA locking_mode = EXCLUSIVE")
    base.execute("BEGIN EXCLUSIVE")
    _check_format(base)
    contents = Contents(
        queues=[decode_name(text) for (text,) in base.execute("SELECT name FROM queues")],
        rows=[_row(found) for found in base.execute("SELECT * FROM tasks ORDER BY position")],
    )
    base.execute("COMMIT")
    # In exclusive mode the log needs no shared memory, and a commit is one append.
    base.execute("PRAGMA journal_mode = WAL")
    return contents


def _check_format(base: sqlite3.Connection) -> None:
    (found,) = base.execute("PRAGMA application_id").fetchone()
    (version,) = base.execute("PRAGMA user_version").fetchone()
    (tables,) = base.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (found, tables) == (0, 0):
        for statement in _TABLES:
            base.execute(statement)
    elif found != APPLICATION_ID:
        raise QueueFileError("is a database of something else, and is left alone")
    elif version != FORMAT:
        text = f"has format {version}, this version reads {FORMAT}; it is left alone"
        raise QueueFileError(text)
    elif (report := base.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise QueueFileError(f"is damaged, and is left alone: {report}")


def _row(found: tuple[Any, ...]) -> Row:
    number, state, position, due, redeliveries, copy_id, text, body = found
    envelope = decode_envelope(text, bytes(body))
    return Row(number, State(state), position, due, redeliveries, copy_id, envelope)
