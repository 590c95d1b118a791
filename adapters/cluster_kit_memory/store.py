"""Where a hub's tasks are kept: nowhere but in memory, or in a file written behind a thread."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cluster_kit_memory.queue_file import Change, Contents, QueueFile, Row, State
from cluster_kit_memory.records import encode_envelope, encode_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cluster_kit.clock import Clock
    from cluster_kit.names import QueueName
    from cluster_kit_memory.work_queue import Stored

    Done = Callable[[Exception | None], None]

__all__ = ["Contents", "FileStore", "NoStore", "Row", "State", "Store", "ignore"]

log = logging.getLogger(__name__)


def ignore(_error: Exception | None) -> None:
    """Be a `done` that nobody waits for."""


class Store(Protocol):
    """What a hub tells of every move of a task.

    `done` is called later, never from within the call, in the order of the calls. It gets the
    error of `add` when the task could not be stored. Every other move has happened whatever the
    store says: it is written as soon as that is possible, and `done` gets None.
    """

    @property
    def trouble(self) -> str:
        """Why the last writing failed; empty while all is well."""
        ...

    @property
    def trouble_since(self) -> float:
        """When writing began to fail, seconds since 1970; 0 while all is well."""
        ...

    def add(self, stored: Stored, state: State, due: float, done: Done) -> None:
        """Keep a new task; `due` (seconds since 1970) matters while it is WAITING.

        Raises:
            EncodeError: a header cannot be kept.
        """
        ...

    def change(self, stored: Stored, state: State, done: Done) -> None:
        """Note where a task is now."""
        ...

    def remove(self, ids: Iterable[int], done: Done) -> None:
        """Forget tasks."""
        ...

    def name_queue(self, name: QueueName) -> None:
        """Note that there is a queue of this name."""
        ...

    def close(self) -> asyncio.Future[None]:
        """Write what is left and let go of the file."""
        ...

    def abandon(self) -> None:
        """Do as `close` when the event loop is gone; blocks for as long as writing takes."""
        ...


class NoStore:
    """Keeps nothing. Yields to the event loop where a store would write."""

    trouble = ""
    trouble_since = 0.0

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def add(self, stored: Stored, state: State, due: float, done: Done) -> None:  # noqa: ARG002
        """Do nothing."""
        self._loop.call_soon(done, None)

    def change(self, stored: Stored, state: State, done: Done) -> None:  # noqa: ARG002 - as above
        """Do nothing."""
        if done is not ignore:
            self._loop.call_soon(done, None)

    def remove(self, ids: Iterable[int], done: Done) -> None:  # noqa: ARG002 - as above
        """Do nothing."""
        self._loop.call_soon(done, None)

    def name_queue(self, name: QueueName) -> None:
        """Do nothing."""

    def close(self) -> asyncio.Future[None]:
        """Do nothing."""
        closed: asyncio.Future[None] = self._loop.create_future()
        closed.set_result(None)
        return closed

    def abandon(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Changes that are written together. `vital` ones fail aloud, others are tried again."""

    changes: tuple[Change, ...]
    vital: bool
    done: Done


class FileStore:
    """Writes to a `QueueFile` in a thread of its own, all that has gathered in one transaction.

    A new task or dead letter is on disk, safe from a loss of power, when `done` is called. Other
    moves are safe from the end of this process, and on disk with the next task at the latest.

    Attributes:
        trouble: why the last writing failed.
        trouble_since: when writing began to fail.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.trouble = ""
        self.trouble_since = 0.0
        self._path = path
        self._clock = clock
        self._file = QueueFile(path)
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"queue file {path.name}")
        self._gathered: list[_Entry] = []
        self._unwritten: dict[int | str, Change] = {}  # by row; the last one says it all
        self._writing = False
        self._closed: asyncio.Future[None] | None = None
        self._let_go = False

    def open(self) -> asyncio.Future[Contents]:
        """Open the file and read it. The result's errors are those of `QueueFile.open`."""
        return self._loop.run_in_executor(self._thread, self._file.open)

    def add(self, stored: Stored, state: State, due: float, done: Done) -> None:
        """Keep a new task."""
        envelope = stored.envelope
        row = Row(
            stored.id, state, stored.position, due, stored.redeliveries, stored.copy_id, envelope
        )
        change = Change.insert(row, encode_envelope(envelope))
        self._gather(_Entry((change,), vital=True, done=done))

    def change(self, stored: Stored, state: State, done: Done) -> None:
        """Note where a task is now."""
        if state is State.DEAD:  # it says why only now
            text = encode_envelope(stored.envelope)
            change = Change.bury(stored.id, stored.position, stored.redeliveries, text)
        else:
            change = Change.move(stored.id, state, stored.position, stored.redeliveries)
        self._gather(_Entry((change,), vital=False, done=done))

    def remove(self, ids: Iterable[int], done: Done) -> None:
        """Forget tasks."""
        changes = tuple(Change.delete(number) for number in ids)
        self._gather(_Entry(changes, vital=False, done=done))

    def name_queue(self, name: QueueName) -> None:
        """Note that there is a queue of this name."""
        change = Change.name_queue(encode_name(name))
        self._gather(_Entry((change,), vital=False, done=ignore))

    def _gather(self, entry: _Entry) -> None:
        self._gathered.append(entry)
        if not self._writing:
            self._write()

    def _write(self) -> None:
        batch, self._gathered = self._gathered, []
        if self._unwritten:
            late = tuple(self._unwritten.values())
            self._unwritten = {}
            batch.insert(0, _Entry(late, vital=False, done=ignore))
        self._writing = True
        writing = self._loop.run_in_executor(self._thread, self._write_in_thread, batch)
        writing.add_done_callback(partial(self._written, batch))

    def _write_in_thread(self, batch: list[_Entry]) -> list[Exception | None]:
        """Return the outcome of each entry; one that cannot be written spoils no other."""
        everything = [change for entry in batch for change in entry.changes]
        error = self._file.write(everything, durable=any(entry.vital for entry in batch))
        if error is None or len(batch) == 1:
            return [error] * len(batch)
        return [self._file.write(entry.changes, durable=entry.vital) for entry in batch]

    def _written(
        self, batch: list[_Entry], writing: asyncio.Future[list[Exception | None]]
    ) -> None:
        errors = writing.result()
        self._note_trouble(None if None in errors else errors[0])
        for entry, error in zip(batch, errors, strict=True):
            if error is not None and not entry.vital:
                self._unwritten.update((change.key, change) for change in entry.changes)
            self._loop.call_soon(entry.done, error if entry.vital else None)
        self._writing = False
        if self._gathered:
            self._write()
        elif self._closed is not None:
            self._finish(self._closed)

    def _note_trouble(self, error: Exception | None) -> None:
        if error is None:
            self.trouble, self.trouble_since = "", 0.0
            return
        if not self.trouble:
            self.trouble_since = self._clock.wall()
            log.error("cannot write %s: %s; no task is accepted until it works", self._path, error)
        self.trouble = f"cannot write {self._path}: {error}"

    def close(self) -> asyncio.Future[None]:
        """Write what is left and let go of the file."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            if not self._writing:
                self._finish(self._closed)
        return self._closed

    def _finish(self, closed: asyncio.Future[None]) -> None:
        self._let_go = True
        left = list(self._unwritten.values())
        closing = self._loop.run_in_executor(self._thread, self._close_in_thread, left)
        closing.add_done_callback(lambda _: closed.set_result(None))
        self._thread.shutdown(wait=False)

    def abandon(self) -> None:
        """Do as `close`, and wait for it here."""
        if not self._let_go:
            left = list(self._unwritten.values())
            left += [change for entry in self._gathered for change in entry.changes]
            self._thread.submit(self._close_in_thread, left)
        self._thread.shutdown(wait=True)

    def _close_in_thread(self, left: list[Change]) -> None:
        error = self._file.write(left, durable=True) if left else None
        self._file.close()
        if error is not None:
            text = "%d outcomes could not be written to %s: these tasks may run again (%s)"
            log.error(text, len(left), self._path, error)
