"""The port of transactions: sessions and connections of SQLAlchemy, sync and async."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from cluster_kit.errors import ConfigurationError
from cluster_kit_sqlalchemy.connections import ConnectionJournals
from cluster_kit_sqlalchemy.sessions import SessionJournals, on_connection, parts_of
from cluster_kit_sqlalchemy.transactional import check_transactional

if TYPE_CHECKING:
    from cluster_kit.ports import Waiting

_KINDS = (Session, AsyncSession, Connection, AsyncConnection)
_REGISTRIES = (scoped_session, async_scoped_session)
"""Of sessions, one for each scope; in what scope a call was made is not known where it arrives."""


class SqlAlchemyTransactions:
    """A `TransactionAdapter`. What is in no transaction yet begins one, as by its first use."""

    def __init__(self) -> None:
        self._connections = ConnectionJournals()
        self._sessions = SessionJournals(self._connections)

    def knows(self, transaction: object) -> bool:
        """As `TransactionAdapter.knows`."""
        return isinstance(transaction, _KINDS + _REGISTRIES)

    async def join(self, transaction: object, waiting: Waiting) -> None:
        """As `TransactionAdapter.join`.

        Raises:
            ConfigurationError: a connection is closed or not open yet, or commits each statement
                by itself; a session that does not begin by itself was not begun; a registry of
                sessions instead of one of them.
        """
        if isinstance(transaction, AsyncSession):
            session = transaction.sync_session
            if _begun_on_connection(session):
                await transaction.connection()
            await transaction.run_sync(_check_parts)
            self._sessions.note(session, waiting)
        elif isinstance(transaction, Session):
            if _begun_on_connection(transaction):
                transaction.connection()
            _check_parts(transaction)
            self._sessions.note(transaction, waiting)
        elif isinstance(transaction, AsyncConnection):
            inner = await _begun(transaction)
            await transaction.run_sync(check_transactional)
            self._connections.note(inner, waiting)
        elif isinstance(transaction, Connection):
            if not _opened(transaction).in_transaction():
                transaction.begin()
            check_transactional(transaction)
            self._connections.note(transaction, waiting)
        else:
            kind = type(transaction).__name__
            text = f"the transaction must be a session: call the {kind} to get that of this scope"
            raise ConfigurationError(text)


def _check_parts(session: Session) -> None:
    """Refuse what commits by itself, as far as it has begun; a commit checks the rest."""
    for part in parts_of(session):
        check_transactional(part.connection)


def _begun_on_connection(session: Session) -> bool:
    """Begin, and return whether the session is on a connection that is in a transaction.

    It is to take its part in that then, which may be a savepoint, before anything is noted: what is
    noted earlier would outlive a rollback of the session.
    """
    if not session.in_transaction():
        if not session.autobegin:
            text = "the session of the transaction was not begun, and autobegin is off"
            raise ConfigurationError(text)
        session.begin()
    return on_connection(session)


async def _begun(connection: AsyncConnection) -> Connection:
    inner = _opened(connection.sync_connection)
    if not inner.in_transaction():
        await connection.begin()  # which may talk to the database, so it is awaited
    return inner


def _opened(connection: Connection | None) -> Connection:
    if connection is None or connection.closed:
        raise ConfigurationError("the connection of the transaction is not open")
    return connection
