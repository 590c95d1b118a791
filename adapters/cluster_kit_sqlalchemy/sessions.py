"""When is the transaction of a `Session` committed?"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, NestedTransaction

from cluster_kit_sqlalchemy.connections import expect_commit
from cluster_kit_sqlalchemy.journal import Journal
from cluster_kit_sqlalchemy.transactional import check_transactional

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Transaction
    from sqlalchemy.orm import Session, SessionTransaction

    from cluster_kit.ports import Waiting
    from cluster_kit_sqlalchemy.connections import ConnectionJournals


_EVENTS = (
    "after_begin",
    "after_transaction_create",
    "before_commit",
    "after_commit",
    "after_rollback",
    "after_transaction_end",
)

_HALF = "the session has committed one database and not another"
_CUT_SHORT = "an error of a listener cut the commit of the session short"


class SessionJournals:
    """The journals of sessions, each kept for as long as its session is.

    Args:
        connections: of what a session does on a connection that was given to it, and whose
            transaction may be another's to commit.
    """

    def __init__(self, connections: ConnectionJournals) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._watches: WeakKeyDictionary[Session, _Watch] = WeakKeyDictionary()

    def note(self, session: Session, waiting: Waiting) -> None:
        """Tell `waiting` once the outermost transaction that `session` is in is committed."""
        with self._lock:
            if session not in self._watches:
                self._watches[session] = self._watch(session)
            watch = self._watches[session]
        watch.note(session, waiting)

    def _watch(self, session: Session) -> _Watch:
        watch = _Watch(session, self._connections)
        for name in _EVENTS:
            event.listen(session, name, getattr(watch, name))
        watch.link(session)
        return watch


class _Watch:
    """Hears the events of one session; its methods are named as they are.

    An error in a listener of the application keeps those behind it from hearing an event. So what
    counts is what the connections say; the events are for a session that commits none.
    """

    def __init__(self, session: Session, connections: ConnectionJournals) -> None:
        self._session = ref(session)
        self._journal = Journal()
        self._connections = connections
        self._published = False  # in the present transaction, whichever journal has it
        self._committing = 0  # id of the transaction that is being committed
        self._in_part = False  # whether a connection of the present transaction is committed

    def note(self, session: Session, waiting: Waiting) -> None:
        self._published = True
        parts = parts_of(session)
        outer = _outer(parts)
        # What the session commits by itself must be committed, too; and a journal that was begun
        # is kept to, for the order.
        if outer is None or self._journal or any(part.own for part in parts):
            self._journal.note(waiting)
        else:
            self._connections.note(outer, waiting)

    def link(self, session: Session) -> None:
        """Hear what is done to the connections of the session."""
        parts = parts_of(session)
        if len(parts) == 1 and parts[0].own:
            self._connections.link(parts[0].connection, self._journal)
        for part in parts:
            if part.ends:
                self._connections.expect(part.connection, self)

    # --- what connections say ------------------------------------------------------------

    def committed(self, subject: object, journal: Journal) -> None:
        parts = self._begun()
        if not any(part.is_on(subject) for part in parts):
            return  # another transaction of a connection that the session had
        self._in_part = True
        if all(part.is_on(subject) for part in parts if part.ends and part.transaction.is_active):
            self._leave(journal, parts)

    def in_doubt(self, subject: object, journal: Journal) -> None:
        if any(part.is_on(subject) for part in self._begun()):
            self._journal.give(journal)

    # --- events --------------------------------------------------------------------------

    def after_begin(self, session: Session, *_: object) -> None:
        self.link(session)

    def after_transaction_create(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._journal.mark(id(transaction))

    def before_commit(self, session: Session) -> None:
        if self._published and session.get_nested_transaction() is None:
            for part in parts_of(session):
                check_transactional(part.connection)
                if part.commits:
                    expect_commit(part.connection)
        self._committing = _innermost(session)

    def after_commit(self, session: Session) -> None:
        self._committing = _innermost(session)
        if session.get_nested_transaction() is None:
            journal = Journal()
            self._leave(journal, parts_of(session))
            journal.committed()

    def after_rollback(self, _: Session) -> None:
        self._committing = 0

    def after_transaction_end(self, _: Session, transaction: SessionTransaction) -> None:
        committing = self._committing == id(transaction)
        if committing:
            self._committing = 0
        if transaction.nested:
            end = self._journal.release if committing else self._journal.cut
            end(id(transaction))
        elif transaction.parent is None:
            self._end(transaction, committing=committing)

    # --- inside --------------------------------------------------------------------------

    def _begun(self) -> list[Part]:
        session = self._session()
        return [] if session is None else parts_of(session)

    def _leave(self, journal: Journal, parts: Iterable[Part]) -> None:
        """Leave what waits to `journal`; or to the connection whose transaction goes on."""
        outer = _outer(part for part in parts if not part.ends)
        self._journal.give(journal if outer is None else self._connections.journal(outer))

    def _end(self, transaction: SessionTransaction, *, committing: bool) -> None:
        """See to what still waits when the session's transaction is over."""
        if self._in_part:
            self._journal.in_doubt(_HALF)
        elif committing and not any(part.ends for part in _parts(transaction)):
            self._journal.in_doubt(_CUT_SHORT)
        else:
            self._journal.drop()
        self._published = self._in_part = False


class Part(NamedTuple):
    """A connection that a session is in a transaction of.

    Attributes:
        connection: on which it is.
        transaction: of the connection: its outermost one, or a savepoint.
        commits: whether a commit of the session commits `transaction`.
        own: whether the session opened `connection`, which was given to it otherwise.
    """

    connection: Connection
    transaction: Transaction
    commits: bool
    own: bool

    @property
    def ends(self) -> bool:
        """Whether a commit of the session is one for the database, not of a savepoint."""
        return self.commits and not isinstance(self.transaction, NestedTransaction)

    def is_on(self, subject: object) -> bool:
        """Whether it is this that is committed when a dialect commits `subject`."""
        if not self.ends or not self.transaction.is_active:
            return False
        if subject is self.connection:
            return True
        return not self.connection.invalidated and subject is self.connection.connection


def parts_of(session: Session) -> list[Part]:
    """Return what `session` is in, however it chose its connections: many with `binds`."""
    transaction = session.get_transaction()
    return [] if transaction is None else _parts(transaction)


def _parts(transaction: SessionTransaction) -> list[Part]:
    # Private, as nothing public tells of connections that were begun before anybody listened.
    begun: dict[object, tuple[Connection, Transaction, bool, bool]] = vars(transaction)[
        "_connections"
    ]
    return list(dict.fromkeys(Part(*each) for each in begun.values()))  # each has two keys


def on_connection(session: Session) -> bool:
    """Whether `session` was given a connection, which is in a transaction."""
    return isinstance(session.bind, Connection) and session.bind.in_transaction()


def _outer(parts: Iterable[Part]) -> Connection | None:
    """Return the connection that was given to a session, while that is in a transaction."""
    given = (part.connection for part in parts if not part.own)
    return next((connection for connection in given if connection.in_transaction()), None)


def _innermost(session: Session) -> int:
    return id(session.get_nested_transaction() or session.get_transaction())
