"""Transactions of databases: when is one committed?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Waiting(Protocol):
    """What waits for the end of a transaction.

    Its methods return at once, never raise, and may be called in any thread.
    """

    def committed(self) -> None:
        """The transaction is committed."""
        ...

    def in_doubt(self, why: str) -> None:
        """A commit was asked for, and nobody can tell whether the database has it."""
        ...


class TransactionAdapter(Protocol):
    """Tells when the transactions of one database library are committed."""

    def knows(self, transaction: object) -> bool:
        """Whether `transaction` is of a kind that `join` takes."""
        ...

    async def join(self, transaction: object, waiting: Waiting) -> None:
        """Tell `waiting` once the outermost transaction that `transaction` is in is committed.

        Never when that, or a savepoint around this call, is rolled back, closed or lost; so what
        is not yet in a transaction begins one, where that is how its library goes about work.
        A commit that ended without an answer of the database, as by a cancellation, is told as
        doubt. Calls are made in the order of the joins, in whatever thread commits. Nothing waits
        here for the end of the transaction.

        Raises:
            ConfigurationError: `transaction` cannot be committed: it is closed, or was never
                begun and does not begin by itself.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionSupport:
    """What an adapter tells about the transactions it knows, before it is loaded.

    Attributes:
        package: root package of the library; an object whose class, or a base of it, is from
            there has the adapter loaded.
        accepts: for people, what `transaction=` takes; completes "takes …".
        load: makes the adapter.
    """

    package: str
    accepts: str
    load: Callable[[], TransactionAdapter]
