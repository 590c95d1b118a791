"""When is the transaction of a `Connection` committed?

SQLAlchemy says when a commit begins and not when it has ended, and that a savepoint begins but not
which. So what a dialect does is learnt from the dialect, whose methods return when the database
has done it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event

from cluster_kit_sqlalchemy.journal import Committed, Journal

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect

DoIt = Callable[..., None]
"""A method of a dialect that carries out a step of a transaction."""


_SILENT = ("postgresql",)
"""Databases to which a commit after an error means a rollback, and who do not say so."""


def expect_commit(connection: Connection) -> None:
    """Raise what the database has against a commit, where that would only roll back."""
    if connection.dialect.name in _SILENT:
        connection.exec_driver_sql("SELECT 1")


def _expect_commit_in_one_phase(connection: Connection, xid: object) -> None:
    try:
        expect_commit(connection)
    except BaseException:
        # SQLAlchemy takes the transaction for ended, and would give its pool a connection in one.
        connection.dialect.do_rollback_twophase(connection, xid, is_prepared=False)
        raise


class ConnectionJournals:
    """The journals of connections, each kept for as long as its connection is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._journals: WeakKeyDictionary[Connection, Journal] = WeakKeyDictionary()
        self._dialects: WeakSet[Dialect] = WeakSet()
        self._linked: WeakKeyDictionary[Connection, Journal] = WeakKeyDictionary()
        # By the id of what the dialect is to commit, with that of the session which asked for it.
        self._committing: dict[int, tuple[Journal, Journal | None]] = {}

    def note(self, connection: Connection, call: Committed) -> None:
        """Call `call` once the transaction that `connection` is in is committed."""
        with self._lock:
            if connection not in self._journals:
                self._journals[connection] = Journal()
                self._watch(connection, self._journals[connection])
            journal = self._journals[connection]
        journal.note(call)

    def link(self, connection: Connection, session: Journal) -> None:
        """Have the journal of a session, which will commit `connection`, share in its life.

        A savepoint of the connection drops what was published through the session, too, and what
        was published through either is sent in one order.
        """
        self._linked[connection] = session
        self._learn_from(connection.dialect)

    def unlink(self, connection: Connection) -> None:
        """Undo `link`."""
        self._linked.pop(connection, None)

    def _of(self, connection: Connection) -> list[Journal]:
        found = (self._journals.get(connection), self._linked.get(connection))
        return [journal for journal in found if journal is not None]

    def _watch(self, connection: Connection, journal: Journal) -> None:
        def drop(*_: object) -> None:
            journal.drop()

        def commit(connection: Connection) -> None:
            if journal:
                expect_commit(connection)
            self._committing[id(connection.connection)] = (journal, self._linked.get(connection))

        def commit_twophase(connection: Connection, *details: object) -> None:
            xid, is_prepared = details
            if journal and not is_prepared:  # a doomed transaction cannot be prepared
                _expect_commit_in_one_phase(connection, xid)
            self._committing[id(connection)] = (journal, self._linked.get(connection))

        # A commit that failed is followed by no event of a rollback, but by another beginning.
        for name in ("begin", "begin_twophase", "rollback", "rollback_twophase"):
            event.listen(connection, name, drop)
        event.listen(connection, "commit", commit)
        event.listen(connection, "commit_twophase", commit_twophase)
        self._learn_from(connection.dialect)

    def _learn_from(self, dialect: Dialect) -> None:
        if dialect in self._dialects:
            return
        self._dialects.add(dialect)
        for name, instead in (
            ("do_commit", self._commit),
            ("do_commit_twophase", self._commit),
            ("do_savepoint", self._savepoint),
            ("do_rollback_to_savepoint", self._rollback_to_savepoint),
            ("do_release_savepoint", self._release_savepoint),
        ):
            setattr(dialect, name, partial(instead, getattr(dialect, name)))

    def _commit(self, do: DoIt, subject: object, *details: Any) -> None:  # noqa: ANN401 - passed on
        journal, heir = self._committing.pop(id(subject), (None, None))
        if journal is None:
            do(subject, *details)
            return
        try:
            do(subject, *details)
        except BaseException:
            journal.drop()
            raise
        if heir:  # it is about to be committed, too, and has calls before and after these
            journal.give(heir)
            return
        for call in journal.take():
            call()

    def _savepoint(self, do: DoIt, connection: Connection, name: str) -> None:
        do(connection, name)
        for journal in self._of(connection):
            journal.mark(name)

    def _rollback_to_savepoint(self, do: DoIt, connection: Connection, name: str) -> None:
        for journal in self._of(connection):
            journal.cut(name)
        do(connection, name)

    def _release_savepoint(self, do: DoIt, connection: Connection, name: str) -> None:
        do(connection, name)
        for journal in self._of(connection):
            journal.release(name)
