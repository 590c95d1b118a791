"""Work within the caller's transaction, of whatever kind its session or connection is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from cluster_kit.errors import ConfigurationError, UnknownTransactionError
from cluster_kit_sqlalchemy.schema import lacking_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Dialect, Table

AsyncTransaction = AsyncSession | AsyncConnection
"""Where a caller on the event loop has its transaction."""

BlockingTransaction = Session | Connection
"""Where a caller in a thread, or in `AsyncSession.run_sync`, has its transaction."""

_MAKERS = (sessionmaker, scoped_session, async_sessionmaker, async_scoped_session)
"""Of sessions, which some pass instead of one."""

T = TypeVar("T")


def check_cluster(cluster: object) -> None:
    """Raise `ConfigurationError` for what is no `Extensible`."""
    # Not by its outlets, which are made when they are asked for.
    if isinstance(cluster, type) or not callable(getattr(cluster, "extend", None)):
        raise ConfigurationError(f"cluster must be a Cluster, not {_kind(cluster)}")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_engine(engine: object) -> None:
    """Raise `ConfigurationError` for what is no `AsyncEngine`."""
    if not isinstance(engine, AsyncEngine):
        kind = type(engine).__name__
        hint = ": make it with create_async_engine" if isinstance(engine, Engine) else ""
        raise ConfigurationError(f"engine must be an AsyncEngine, not {kind}{hint}")
    if _isolation(engine.dialect, engine.get_execution_options()) == "AUTOCOMMIT":
        raise ConfigurationError("engine is in AUTOCOMMIT mode: it has no transactions")


async def within(
    transaction: object, table: Table, work: Callable[[Connection], T], *, blocking: str
) -> T:
    """Return what `work` returns, given the connection on which the transaction is.

    Args:
        transaction: an `AsyncTransaction`; one that has not begun begins.
        table: by which a session with several databases chooses.
        work: blocks.
        blocking: what does the same for a `BlockingTransaction`, for people.

    Raises:
        UnknownTransactionError: `transaction` is none that can be awaited.
        ConfigurationError: it commits each statement by itself; or the table is missing.
    """
    if isinstance(transaction, AsyncSession):
        return await transaction.run_sync(within_blocking, table, work)
    if isinstance(transaction, AsyncConnection):
        return await transaction.run_sync(within_blocking, table, work)
    raise _wrong(transaction, ("an AsyncSession", "AsyncConnection"), blocking)


def within_blocking(transaction: object, table: Table, work: Callable[[Connection], T]) -> T:
    """As `within`, for a `BlockingTransaction`."""
    if isinstance(transaction, Session):
        connection = transaction.connection(bind_arguments={"clause": table})
    elif isinstance(transaction, Connection):
        connection = transaction
    else:
        raise _wrong(transaction, ("a Session", "Connection"))
    check_transactional(connection)
    with lacking_told(table):
        return work(connection)


def check_transactional(connection: Connection) -> None:
    """Raise `ConfigurationError` where each statement is committed by itself."""
    if _commits_by_itself(connection):
        text = "the connection is in AUTOCOMMIT mode: there is no transaction to be part of"
        raise ConfigurationError(text)


def _commits_by_itself(connection: Connection) -> bool:
    if _isolation(connection.dialect, connection.get_execution_options()) == "AUTOCOMMIT":
        return True
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)
    # Not on SQLite: there, who begins transactions by an event of the pool looks the same.
    if detect is None or connection.dialect.name == "sqlite":
        return False
    return bool(detect(connection.connection.dbapi_connection))


def _isolation(dialect: Dialect, options: Mapping[str, object]) -> object:
    # What create_engine was given is kept there alone; an execution option overrules it.
    return options.get("isolation_level", getattr(dialect, "_on_connect_isolation_level", None))


def _wrong(
    transaction: object, wanted: tuple[str, ...], blocking: str = ""
) -> UnknownTransactionError:
    kind, hint = type(transaction).__name__, ""
    if isinstance(transaction, _MAKERS):
        hint = f": call the {kind} to get one"
    elif isinstance(transaction, AsyncTransaction):
        hint = "; for that take the method without blocking"
    elif isinstance(transaction, BlockingTransaction):
        hint = f"; for that take {blocking}"
    return UnknownTransactionError(kind, wanted, hint)
