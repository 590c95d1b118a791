"""The port of transactions: sessions and connections of SQLAlchemy, sync and async."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from cluster_kit.errors import ConfigurationError
from cluster_kit_sqlalchemy.connections import ConnectionJournals
from cluster_kit_sqlalchemy.sessions import SessionJournals, on_connection

if TYPE_CHECKING:
    from cluster_kit_sqlalchemy.journal import Committed

_KINDS = (Session, AsyncSession, Connection, AsyncConnection)


class SqlAlchemyTransactions:
    """A `TransactionAdapter`. What is in no transaction yet begins one, as by its first use."""

    def __init__(self) -> None:
        self._connections = ConnectionJournals()
        self._sessions = SessionJournals(self._connections)

    def knows(self, transaction: object) -> bool:
        """As `TransactionAdapter.knows`."""
        return isinstance(transaction, _KINDS)

    async def join(self, transaction: object, committed: Committed) -> None:
        """As `TransactionAdapter.join`.

        Raises:
            ConfigurationError: a connection is closed or not open yet; a session that does not
                begin by itself was not begun.
        """
        if isinstance(transaction, AsyncSession):
            session = transaction.sync_session
            if _begun_on_connection(session):
                await transaction.connection()
            self._sessions.note(session, committed)
        elif isinstance(transaction, Session):
            if _begun_on_connection(transaction):
                transaction.connection()
            self._sessions.note(transaction, committed)
        elif isinstance(transaction, AsyncConnection):
            self._connections.note(await _begun(transaction), committed)
        elif isinstance(transaction, Connection):
            if not _opened(transaction).in_transaction():
                transaction.begin()
            self._connections.note(transaction, committed)


def _begun_on_connection(session: Session) -> bool:
    """Begin, and return whether the session is on a connection that is in a transaction.

    It is to take its part in that then, which may be a savepoint, before anything is noted: what is
    noted earlier would outlive a rollback of the session.
    """
    if not session.in_transaction():
        if not session.autobegin:
            text = "the session of transaction= was not begun, and autobegin is off"
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
        raise ConfigurationError("the connection of transaction= is not open")
    return connection
