"""When is the transaction of a `Session` committed?"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection

from cluster_kit_sqlalchemy.connections import expect_commit
from cluster_kit_sqlalchemy.journal import Committed, Journal

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

    from cluster_kit_sqlalchemy.connections import ConnectionJournals


_EVENTS = ("after_transaction_create", "before_commit", "after_commit", "after_transaction_end")


class SessionJournals:
    """The journals of sessions, each kept for as long as its session is.

    Args:
        connections: of what a session does on a connection that was given to it, and whose
            transaction may be another's to commit.
    """

    def __init__(self, connections: ConnectionJournals) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._journals: WeakKeyDictionary[Session, Journal] = WeakKeyDictionary()

    def note(self, session: Session, call: Committed) -> None:
        """Call `call` once the outermost transaction that `session` is in is committed."""
        with self._lock:
            if session not in self._journals:
                self._journals[session] = self._watch(session)
            journal = self._journals[session]
        outer = outer_connection(session)
        if outer is None or journal:  # a journal that was begun is kept to, for the order
            journal.note(call)
        else:
            self._connections.note(outer, call)

    def _watch(self, session: Session) -> Journal:
        watch = _Watch(self._connections)
        for name in _EVENTS:
            event.listen(session, name, getattr(watch, name))
        return watch.journal


class _Watch:
    """Hears the events of one session; its methods are named as they are."""

    def __init__(self, connections: ConnectionJournals) -> None:
        self.journal = Journal()
        self._connections = connections
        self._committed = 0  # id of the transaction that is being closed after its commit

    def after_transaction_create(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self.journal.mark(id(transaction))

    def before_commit(self, session: Session) -> None:
        if self.journal and session.bind is not None and session.get_nested_transaction() is None:
            expect_commit(session.connection())

    def after_commit(self, session: Session) -> None:
        nested = session.get_nested_transaction()
        self._committed = id(nested or session.get_transaction())
        if nested is not None:
            return
        outer = outer_connection(session)
        for call in self.journal.take():
            if outer is None:
                call()
            else:
                self._connections.note(outer, call)

    def after_transaction_end(self, _: Session, transaction: SessionTransaction) -> None:
        committed, self._committed = self._committed == id(transaction), 0
        if transaction.nested:
            end = self.journal.release if committed else self.journal.cut
            end(id(transaction))
        elif transaction.parent is None and not committed:
            self.journal.drop()


def outer_connection(session: Session) -> Connection | None:
    """Return the connection that was given to `session`, while that is in a transaction."""
    bind = session.bind
    return bind if isinstance(bind, Connection) and bind.in_transaction() else None
