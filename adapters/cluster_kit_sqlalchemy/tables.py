"""The tables, as plain SQLAlchemy tables: on your metadata, so that your migrations make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    false,
)

from cluster_kit_sqlalchemy.schema import check_table
from cluster_kit_sqlalchemy.transactional import check_engine

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

OUTBOX = "cluster_kit_outbox"
"""Default name of the outbox's table."""

INBOX = "cluster_kit_inbox"
"""Default name of the inbox's table."""

_UNKNOWN = "an attempt got no answer: it may have arrived"

LANES = 16
"""Parts of an outbox that relays work off side by side. All messages of a key are in one."""


def outbox_table(metadata: MetaData, *, name: str = OUTBOX, schema: str | None = None) -> Table:
    """Return the table of an outbox on `metadata`. Times are seconds since 1970.

    Args:
        metadata: yours, so that Alembic sees the table.
        name: of the table; its indexes are named after it.
        schema: of the database in which it lives.
    """
    table = Table(
        name,
        metadata,
        Column("position", _BIG, Identity(), primary_key=True, autoincrement=True),
        Column("app", String(40), nullable=False, comment="application whose relays send it"),
        Column("lane", SmallInteger, nullable=False, comment="part of the table, from the key"),
        Column("key", String(250), nullable=False, comment="messages of a key are sent in order"),
        Column("id", String(200), nullable=False, comment="message id"),
        Column("kind", String(10), nullable=False, comment="task, sync or pubsub"),
        Column("channel", String(200), nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("content_type", String(255)),
        Column("options", JSON, nullable=False, comment="what else travels"),
        Column("origin", String(255), nullable=False, comment="instance that published it"),
        Column("created_at", Double, nullable=False),
        Column("due_at", Double, comment="not to be delivered before"),
        Column("attempts", Integer, nullable=False, server_default="0", comment="refused"),
        Column("unconfirmed", Boolean, nullable=False, server_default=false(), comment=_UNKNOWN),
        Column("retry_at", Double, comment="its key waits until then"),
        Column("failed", Boolean, nullable=False, server_default=false(), comment="given up"),
        Column("failed_at", Double),
        Column("error", Text, comment="of the last attempt"),
        schema=schema,
        sqlite_autoincrement=True,  # a position is never used again
    )
    c = table.c
    Index(f"ix_{name}_pending", c.app, c.lane, c.position, **_where(is_pending(table)))
    Index(f"ix_{name}_waiting", c.app, c.lane, **_where(c.retry_at.is_not(None)))
    Index(f"ix_{name}_failed", c.app, c.position, **_where(is_failed(table)))
    return table


def is_pending(table: Table) -> ColumnElement[bool]:
    """Return what is true of an outbox's rows that are to be sent."""
    return table.c.failed.is_(False)


def is_failed(table: Table) -> ColumnElement[bool]:
    """Return what is true of all other rows: SQLite takes more than two values of a Boolean."""
    return table.c.failed.is_not(False)


def inbox_table(metadata: MetaData, *, name: str = INBOX, schema: str | None = None) -> Table:
    """Return the table of an inbox on `metadata`. Times are seconds since 1970.

    Args:
        metadata: yours, so that Alembic sees the table.
        name: of the table; its index is named after it.
        schema: of the database in which it lives.
    """
    return Table(
        name,
        metadata,
        Column("app", String(40), primary_key=True, comment="application that has handled it"),
        Column("consumer", String(200), primary_key=True, comment="which part of it"),
        Column("message_id", String(200), primary_key=True),
        Column("handled_at", Double, nullable=False),
        Index(f"ix_{name}_handled_at", "app", "handled_at"),
        schema=schema,
    )


async def create_tables(engine: AsyncEngine, *tables: Table) -> None:
    """Create tables that are missing; by default outbox and inbox under their default names.

    For trying out, tests, and applications without migrations. A table that is there stays as it
    is, also where it lacks columns.

    Raises:
        ConfigurationError: `engine` is no `AsyncEngine`, or what is to be created no `Table`.
    """
    check_engine(engine)
    for table in tables:
        check_table("tables", table)
    if not tables:
        metadata = MetaData()
        tables = (outbox_table(metadata), inbox_table(metadata))
    async with engine.begin() as connection:
        for table in tables:
            await connection.run_sync(table.create, checkfirst=True)


_BIG = BigInteger().with_variant(Integer, "sqlite")  # where only INTEGER counts up by itself


def _where(condition: object) -> dict[str, Any]:
    return {"postgresql_where": condition, "sqlite_where": condition}
