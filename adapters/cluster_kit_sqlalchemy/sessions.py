"""When is the transaction of a `Session` committed?"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection

from cluster_kit_sqlalchemy.connections import expect_commit
from cluster_kit_sqlalchemy.journal import Committed, Journal
from cluster_kit_sqlalchemy.transactional import check_transactional

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Transaction
    from sqlalchemy.orm import Session, SessionTransaction

    from cluster_kit_sqlalchemy.connections import ConnectionJournals


_EVENTS = (
    "after_begin",
    "after_transaction_create",
    "before_commit",
    "after_commit",
    "after_transaction_end",
)


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

    def note(self, session: Session, call: Committed) -> None:
        """Call `call` once the outermost transaction that `session` is in is committed."""
        with self._lock:
            if session not in self._watches:
                self._watches[session] = self._watch(session)
            watch = self._watches[session]
        watch.note(session, call)

    def _watch(self, session: Session) -> _Watch:
        watch = _Watch(self._connections)
        for name in _EVENTS:
            event.listen(session, name, getattr(watch, name))
        watch.link(session)
        return watch


class _Watch:
    """Hears the events of one session; its methods are named as they are."""

    def __init__(self, connections: ConnectionJournals) -> None:
        self._journal = Journal()
        self._connections = connections
        self._published = False  # in the present transaction, whichever journal has it
        self._committed = 0  # id of the transaction that is being closed after its commit

    def note(self, session: Session, call: Committed) -> None:
        self._published = True
        parts = parts_of(session)
        outer = _outer(parts)
        # What the session commits by itself must be committed, too; and a journal that was begun
        # is kept to, for the order.
        if outer is None or self._journal or any(part.own for part in parts):
            self._journal.note(call)
        else:
            self._connections.note(outer, call)

    def link(self, session: Session) -> None:
        """Hear what is done to the session's connection, where it has one and has opened it."""
        parts = parts_of(session)
        if len(parts) == 1 and parts[0].own:
            self._connections.link(parts[0].connection, self._journal)

    def after_begin(self, session: Session, *_: object) -> None:
        self.link(session)

    def after_transaction_create(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._journal.mark(id(transaction))

    def before_commit(self, session: Session) -> None:
        if not self._published or session.get_nested_transaction() is not None:
            return
        parts = parts_of(session)
        for part in parts:
            check_transactional(part.connection)
            if part.commits:
                expect_commit(part.connection)
        if len(parts) > 1:  # one may be committed and the next fail: each speaks for itself
            for part in parts:
                self._connections.unlink(part.connection)

    def after_commit(self, session: Session) -> None:
        nested = session.get_nested_transaction()
        self._committed = id(nested or session.get_transaction())
        if nested is not None:
            return
        outer = _outer(parts_of(session))
        for call in self._journal.take():
            if outer is None:
                call()
            else:
                self._connections.note(outer, call)

    def after_transaction_end(self, _: Session, transaction: SessionTransaction) -> None:
        committed, self._committed = self._committed == id(transaction), 0
        if transaction.nested:
            end = self._journal.release if committed else self._journal.cut
            end(id(transaction))
        elif transaction.parent is None:
            self._published = False
            if not committed:
                self._journal.drop()


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


def parts_of(session: Session) -> list[Part]:
    """Return what `session` is in, however it chose its connections: many with `binds`."""
    transaction = session.get_transaction()
    if transaction is None:
        return []
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
