"""The database under test, and units of work on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from cluster_kit.testing.selection import ContractFeatures

Kind = Literal[
    "session",
    "binds_session",
    "routing_session",
    "async_session",
    "async_binds_session",
    "connection",
    "async_connection",
]
"""What may be passed as `transaction`. A session has one database, or `binds`, or routes itself."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_TABLES = MetaData()
Table("ck_parents", _TABLES, Column("id", Integer, primary_key=True, autoincrement=False))
WRITTEN = Table(
    "ck_written",
    _TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer, ForeignKey("ck_parents.id", deferrable=True, initially="DEFERRED")),
)
"""Where scenarios write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(ContractFeatures):
    """What a database and its drivers can do. Scenarios that need more are not run."""

    two_phase: bool = True
    """It has two-phase commit, and its synchronous driver knows how to ask for it."""

    dooming_errors: bool = True
    """After an error a transaction can only be rolled back, also by a commit."""

    threads: bool = True
    """A session of its synchronous engine may be begun in one thread and committed in another."""


class Work:
    """A session or connection, sync or async: the same calls for all.

    Attributes:
        subject: what is passed as `transaction`.
    """

    def __init__(self, subject: Any) -> None:  # noqa: ANN401 - four kinds, used alike
        self.subject: Any = subject

    async def write(self, value: int, parent: int | None = None) -> None:
        """Insert a row; a parent that does not exist has the commit fail."""
        await _done(self.subject.execute(insert(WRITTEN), {"id": value, "parent": parent}))

    async def connection(self) -> Work:
        """Return the connection that a session works on."""
        return Work(await _done(self.subject.connection()))

    async def savepoint(self) -> Work:
        """Begin a savepoint; `commit` of what is returned releases it."""
        return Work(await _done(self.subject.begin_nested()))

    async def commit(self) -> None:
        """Commit, or release."""
        await _done(self.subject.commit())

    async def rollback(self) -> None:
        """Roll back."""
        await _done(self.subject.rollback())

    async def close(self) -> None:
        """Close."""
        await _done(self.subject.close())

    async def invalidate(self) -> None:
        """Lose the connection to the database."""
        await _done(self.subject.invalidate())


async def _done(result: Any) -> Any:  # noqa: ANN401 - whatever the library returns
    return await result if inspect.isawaitable(result) else result


class Routing(Session):
    """A session that chooses where each statement goes: here always to the same."""

    def get_bind(self, *_: Any, **__: Any) -> Engine | Connection:  # noqa: ANN401 - passed over
        """Return what was given as ``info={"database": ...}``."""
        database: Engine | Connection = self.info["database"]
        return database


class Environment:
    """A database, with tables of its own from `open` to `close`.

    Args:
        url: of the database, for an engine.
        async_url: of the same database, for an asynchronous engine.

    Attributes:
        engine: of `url`.
        async_engine: of `async_url`.
    """

    def __init__(self, url: str, async_url: str) -> None:
        self.engine = create_engine(url)
        self.async_engine: AsyncEngine = create_async_engine(async_url)
        for engine in (self.engine, self.async_engine.sync_engine):
            if engine.dialect.name == "sqlite":
                event.listen(engine, "connect", _leave_transactions_alone)
                event.listen(engine, "begin", _begin)

    def open(self) -> None:
        """Make the tables."""
        _TABLES.drop_all(self.engine)
        _TABLES.create_all(self.engine)

    async def work(self, kind: Kind) -> Work:
        """Return a new session or connection."""
        if kind == "async_connection":
            return Work(await self.async_engine.connect())
        make: dict[Kind, Callable[[], object]] = {
            "session": lambda: Session(self.engine),
            "binds_session": lambda: Session(binds={WRITTEN: self.engine}),
            "routing_session": lambda: Routing(info={"database": self.engine}),
            "async_session": lambda: AsyncSession(self.async_engine),
            "async_binds_session": lambda: AsyncSession(binds={WRITTEN: self.async_engine}),
            "connection": self.engine.connect,
        }
        return Work(make[kind]())

    def written(self) -> list[int]:
        """Return what is committed, in order."""
        with self.engine.connect() as connection:
            return list(connection.scalars(select(WRITTEN.c.id).order_by(WRITTEN.c.id)))

    async def close(self) -> None:
        """Drop the tables and disconnect."""
        _TABLES.drop_all(self.engine)
        self.engine.dispose()
        await self.async_engine.dispose()


def _leave_transactions_alone(connection: Any, _: object) -> None:  # noqa: ANN401 - of any driver
    # The driver of SQLite would begin transactions by itself, and not before a savepoint.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("foreign_keys = ON", "synchronous = OFF", "journal_mode = MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:  # noqa: ANN401 - a connection of either engine
    connection.exec_driver_sql("BEGIN")
