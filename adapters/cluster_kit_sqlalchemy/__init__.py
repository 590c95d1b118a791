"""Databases through SQLAlchemy: publishing after a commit, an outbox, an inbox, fences.

``from cluster_kit_sqlalchemy import Outbox``. SQLAlchemy is imported when a name is first used,
so that listing adapters is cheap.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from cluster_kit.ports import AdapterSpec, Driver, TransactionSupport

if TYPE_CHECKING:
    from cluster_kit.ports import TransactionAdapter
    from cluster_kit_sqlalchemy.fencing import Fences, StaleSnapshotError, fence_table
    from cluster_kit_sqlalchemy.inbox import Inbox, InboxStats
    from cluster_kit_sqlalchemy.outbox import FailedMessage, Outbox, OutboxStats
    from cluster_kit_sqlalchemy.tables import create_tables, inbox_table, outbox_table

__all__ = [
    "ADAPTER",
    "FailedMessage",
    "Fences",
    "Inbox",
    "InboxStats",
    "Outbox",
    "OutboxStats",
    "StaleSnapshotError",
    "create_tables",
    "fence_table",
    "inbox_table",
    "outbox_table",
]


_INSTALL = "pip install 'cluster-kit[sqlalchemy]'"


@cache  # what is learnt of an engine serves every cluster of the process
def _transactions() -> TransactionAdapter:
    # Imported here, for it loads SQLAlchemy, which listing adapters must not.
    from cluster_kit_sqlalchemy.transactions import SqlAlchemyTransactions

    return SqlAlchemyTransactions()


ADAPTER = AdapterSpec(
    name="sqlalchemy",
    schemes=(),
    transactions=TransactionSupport(
        package="sqlalchemy",
        accepts="a Session, AsyncSession, Connection or AsyncConnection of SQLAlchemy 2",
        load=_transactions,
    ),
    drivers=(Driver(package="sqlalchemy"),),
    install=_INSTALL,
)
"""Registered in the entry-point group ``cluster_kit.adapters``."""

_HOME = {
    "FailedMessage": "outbox",
    "Fences": "fencing",
    "Inbox": "inbox",
    "InboxStats": "inbox",
    "Outbox": "outbox",
    "OutboxStats": "outbox",
    "StaleSnapshotError": "fencing",
    "create_tables": "tables",
    "fence_table": "fencing",
    "inbox_table": "tables",
    "outbox_table": "tables",
}


def __getattr__(name: str) -> object:
    if (home := _HOME.get(name)) is not None:
        try:
            return getattr(import_module(f"cluster_kit_sqlalchemy.{home}"), name)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.startswith(__name__):
                raise
            text = f"{name} of {__name__} needs the package {exc.name}: {_INSTALL}"
            raise ImportError(text, name=exc.name) from exc
    text = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(text)


def __dir__() -> list[str]:
    return sorted(__all__)
