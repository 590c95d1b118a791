"""When is the transaction of a `Connection` committed?

SQLAlchemy says when a commit begins and not when it has ended, and that a savepoint begins but not
which. So what a dialect does is learnt from the dialect, whose methods return when the database
has done it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection

from cluster_kit_sqlalchemy.journal import Journal

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from cluster_kit.ports import Waiting

DoIt = Callable[..., None]
"""A method of a dialect that carries out a step of a transaction."""


_SILENT = ("postgresql",)
"""Databases to which a commit after an error means a rollback, and who do not say so."""


_LEARNING = threading.Lock()
"""Held while the methods of a dialect are replaced, which several instances may be about to do."""


_SEVERED = ("08", "57P", "40003")
"""How codes of errors begin that do not tell what became of a commit: the server was stopped."""


class Committing(Protocol):
    """What commits connections, and has waiting what is committed with them: a session."""

    def committed(self, subject: object, journal: Journal) -> None:
        """Add to `journal` what waited for the commit of `subject` alone. It is carried out."""
        ...

    def in_doubt(self, subject: object, journal: Journal) -> None:
        """Add to `journal` what waited for the commit of `subject`, whose outcome is unknown."""
        ...


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
        self._asked: dict[int, Journal] = {}  # by the id of what the dialect is to commit
        # By what the dialect is to commit: a pool's connection, or in two phases a `Connection`.
        self._committing: WeakKeyDictionary[object, Committing] = WeakKeyDictionary()

    def note(self, connection: Connection, waiting: Waiting) -> None:
        """Tell `waiting` once the transaction that `connection` is in is committed."""
        self.journal(connection).note(waiting)

    def journal(self, connection: Connection) -> Journal:
        """Return what waits for the transaction that `connection` is in."""
        with self._lock:
            if connection not in self._journals:
                self._journals[connection] = Journal()
                self._watch(connection, self._journals[connection])
            return self._journals[connection]

    def link(self, connection: Connection, session: Journal) -> None:
        """Have the journal of a session, which will commit `connection`, share in its life.

        A savepoint of the connection drops what was published through the session, too, and what
        was published through either is sent in one order.
        """
        self._linked[connection] = session
        self._learn_from(connection.dialect)

    def expect(self, connection: Connection, by: Committing) -> None:
        """Tell `by` what becomes of the next commits of `connection`.

        The dialect tells, as no listener of the application can keep it from it by an error.
        """
        self._committing[connection] = self._committing[connection.connection] = by
        self._learn_from(connection.dialect)

    def _of(self, connection: Connection) -> list[Journal]:
        found = (self._journals.get(connection), self._linked.get(connection))
        return [journal for journal in found if journal is not None]

    def _watch(self, connection: Connection, journal: Journal) -> None:
        def drop(*_: object) -> None:
            journal.drop()

        def commit(connection: Connection) -> None:
            if journal:
                expect_commit(connection)
            self._asked[id(connection.connection)] = journal

        def commit_twophase(connection: Connection, *details: object) -> None:
            xid, is_prepared = details
            if journal and not is_prepared:  # a doomed transaction cannot be prepared
                _expect_commit_in_one_phase(connection, xid)
            self._asked[id(connection)] = journal

        # A commit that failed is followed by no event of a rollback, but by another beginning.
        for name in ("begin", "begin_twophase", "rollback", "rollback_twophase"):
            event.listen(connection, name, drop)
        event.listen(connection, "commit", commit)
        event.listen(connection, "commit_twophase", commit_twophase)
        self._learn_from(connection.dialect)

    def _learn_from(self, dialect: Dialect) -> None:
        commit = partial(self._commit, dialect)
        with _LEARNING:
            if dialect in self._dialects:
                return
            for name, instead in (
                ("do_commit", commit),
                ("do_commit_twophase", commit),
                ("do_savepoint", self._savepoint),
                ("do_rollback_to_savepoint", self._rollback_to_savepoint),
                ("do_release_savepoint", self._release_savepoint),
            ):
                setattr(dialect, name, partial(instead, getattr(dialect, name)))
            self._dialects.add(dialect)

    def _commit(self, dialect: Dialect, do: DoIt, subject: object, *details: Any) -> None:  # noqa: ANN401 - passed on
        journal, by = self._asked.pop(id(subject), Journal()), self._committing.get(subject)
        try:
            do(subject, *details)
        except BaseException as exc:
            if _refused(dialect, subject, exc):
                journal.drop()
            else:
                if by is not None:
                    by.in_doubt(subject, journal)
                journal.in_doubt(f"its commit ended with {type(exc).__name__}: {exc}")
            raise
        if by is not None:
            by.committed(subject, journal)
        journal.committed()

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


def _refused(dialect: Dialect, subject: object, error: BaseException) -> bool:
    """Whether it is the database that says that it has not committed."""
    if not isinstance(error, dialect.loaded_dbapi.Error):
        return False
    if str(getattr(error, "sqlstate", None)).startswith(_SEVERED):
        return False
    pooled: Any = subject.connection if isinstance(subject, Connection) else subject
    return not dialect.is_disconnect(error, pooled, None)
