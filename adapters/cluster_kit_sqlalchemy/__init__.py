"""The SQLAlchemy adapter: publishing after the commit of a session or connection."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cluster_kit.ports import AdapterSpec, TransactionSupport

if TYPE_CHECKING:
    from cluster_kit.ports import TransactionAdapter

__all__ = ["ADAPTER"]


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
    install="pip install 'cluster-kit[sqlalchemy]'",
)
"""Registered in the entry-point group ``cluster_kit.adapters``."""
