"""When is the transaction of a `Connection` committed?

SQLAlchemy says when a commit begins and not when it has ended. The end is learnt from the dialect,
whose ``do_commit`` returns when the database has committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event

from cluster_kit_sqlalchemy.journal import Committed, Journal

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect


class ConnectionJournals:
    """The journals of connections, each kept for as long as its connection is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._journals: WeakKeyDictionary[Connection, Journal] = WeakKeyDictionary()
        self._dialects: WeakSet[Dialect] = WeakSet()
        self._committing: dict[int, Journal] = {}  # by what the dialect is asked to commit

    def note(self, connection: Connection, call: Committed) -> None:
        """Call `call` once the transaction that `connection` is in is committed."""
        with self._lock:
            if connection not in self._journals:
                self._journals[connection] = self._watch(connection)
            journal = self._journals[connection]
        journal.note(call)

    def _watch(self, connection: Connection) -> Journal:
        watch = _Watch(self._committing)
        for name in _EVENTS:
            event.listen(connection, name, getattr(watch, name))
        if connection.dialect not in self._dialects:
            self._dialects.add(connection.dialect)
            for name in ("do_commit", "do_commit_twophase"):
                setattr(connection.dialect, name, self._told(getattr(connection.dialect, name)))
        return watch.journal

    def _told(self, do_commit: Callable[..., None]) -> Callable[..., None]:
        def committed(subject: object, *details: Any) -> None:  # noqa: ANN401 - the dialect's own
            journal = self._committing.pop(id(subject), None)
            try:
                do_commit(subject, *details)
            except BaseException:
                if journal is not None:
                    journal.drop()
                raise
            for call in journal.take() if journal is not None else ():
                call()

        return committed


_EVENTS = (
    "begin",
    "begin_twophase",
    "savepoint",
    "release_savepoint",
    "rollback_savepoint",
    "commit",
    "commit_twophase",
    "rollback",
    "rollback_twophase",
)


class _Watch:
    """Hears the events of one connection; its methods are named as they are."""

    def __init__(self, committing: dict[int, Journal]) -> None:
        self.journal = Journal()
        self._committing = committing

    def begin(self, *_: object) -> None:
        # No rollback is heard of where a commit has failed.
        self.journal.drop()

    begin_twophase = rollback = rollback_twophase = begin

    def savepoint(self, _: Connection, name: str | None) -> None:
        self.journal.mark(name)

    def release_savepoint(self, _: Connection, name: str, __: None) -> None:
        self.journal.release(name)

    def rollback_savepoint(self, _: Connection, name: str, __: None) -> None:
        self.journal.cut(name)

    def commit(self, connection: Connection) -> None:
        self._committing[id(connection.connection)] = self.journal

    def commit_twophase(self, connection: Connection, *_: object) -> None:
        self._committing[id(connection)] = self.journal
