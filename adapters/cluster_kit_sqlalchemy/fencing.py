"""Databases that refuse a holder whose lock another one has had since.

A lock cannot keep a holder from writing that was stopped between its last look and its write. The
database can: it remembers the highest fence it has seen of each lock, in the transaction that
writes what the lock protects::

    fences = Fences(cluster, table=fence_table(Base.metadata))

    async with locks.hold("account:7") as lease, sessions.begin() as session:
        await fences.guard(session, lease)
        ...  # read and write what the lock protects

The row of the lock stays locked until the transaction ends, so that a newer holder waits for an
older one that was there before it, and an older one finds the newer one's fence.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import BigInteger, Column, CursorResult, MetaData, String, Table
from sqlalchemy.exc import IntegrityError

from cluster_kit.errors import ConfigurationError, LockError, LockLost
from cluster_kit.names import MAX_APP_BYTES
from cluster_kit_sqlalchemy.schema import check_table
from cluster_kit_sqlalchemy.transactional import check_cluster, within, within_blocking

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from cluster_kit.ports import Extensible
    from cluster_kit_sqlalchemy.transactional import AsyncTransaction, BlockingTransaction

TABLE = "cluster_kit_fences"
"""Default name of the table."""

_MOST_KEY = 210  # of a permit: the key of its semaphore, and a number


class StaleSnapshotError(LockError):
    """The transaction reads a state of the database from before the lock's fence was written.

    So at REPEATABLE READ, when another holder has written since the transaction's first
    statement. Nothing is lost: roll back, begin anew, guard again.
    """

    def __init__(self, key: str) -> None:
        text = "another transaction has written its fence since this one began: begin it anew"
        super().__init__(key, text)


class Fenced(Protocol):
    """A lease, such as `cluster_kit.Lease`."""

    @property
    def app(self) -> str:
        """Name of the application whose lock it is."""
        ...

    @property
    def key(self) -> str:
        """Of the lock."""
        ...

    @property
    def fence(self) -> int:
        """Of this holder; raises `LockLost` when it knows that the lock is not its own."""
        ...


def fence_table(metadata: MetaData, *, name: str = TABLE, schema: str | None = None) -> Table:
    """Return the table of fences on `metadata`, for your migrations to make.

    Args:
        metadata: yours.
        name: of the table.
        schema: of the database in which it lives.

    Raises:
        ConfigurationError: `metadata` is none.
    """
    if not isinstance(metadata, MetaData):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's
        raise ConfigurationError(f"metadata must be a MetaData, not {type(metadata).__name__}")
    return Table(
        name,
        metadata,
        Column("app", String(MAX_APP_BYTES), primary_key=True, comment="whose lock it is"),
        Column("key", String(_MOST_KEY), primary_key=True, comment="of the lock"),
        Column("fence", BigInteger, nullable=False, comment="highest that has written"),
        schema=schema,
    )


class Fences:
    """Checks leases within transactions.

    Args:
        cluster: whose locks these are. Other applications may share the table: a key of theirs is
            another lock.
        table: as `fence_table` makes it; by default under its default name.

    Attributes:
        table: where the fences are.
    """

    def __init__(self, cluster: Extensible, *, table: Table | None = None) -> None:
        check_cluster(cluster)
        own = fence_table(MetaData())
        self.table: Table = own if table is None else check_table("table", table, own)
        self._app = cluster.outlets.app

    async def guard(self, transaction: AsyncTransaction, lease: Fenced) -> None:
        """Let your transaction go on only if no newer holder of the lock has written.

        Call it before anything the lock protects is read or written.

        Args:
            transaction: an `AsyncSession` or `AsyncConnection`; its transaction begins where it
                has not.
            lease: of a lock of the cluster's application.

        Raises:
            UnknownTransactionError: `transaction` is of no such kind.
            TypeError: `lease` is no lease of one lock.
            ConfigurationError: the connection is in autocommit, or the lease is of a lock of
                another application.
            LockLost: a newer holder has, or the lease says itself that it is lost. Let it end the
                transaction.
            StaleSnapshotError: the transaction cannot see whether one has; begin it anew.
            SQLAlchemyError: of the database; at REPEATABLE READ and SERIALIZABLE also when another
                transaction has written the fence meanwhile: begin anew then.
        """
        _check(lease)
        guard = partial(self._guard, lease)
        await within(transaction, self.table, guard, blocking="guard_blocking")

    def guard_blocking(self, transaction: BlockingTransaction, lease: Fenced) -> None:
        """As `guard`, for a `Session` or `Connection`."""
        _check(lease)
        within_blocking(transaction, self.table, partial(self._guard, lease))

    # --- inside --------------------------------------------------------------------------

    def _guard(self, lease: Fenced, connection: Connection) -> None:
        if lease.app != self._app:
            text = f"lock {lease.key!r} is of application {lease.app!r}, and not of {self._app!r}"
            raise ConfigurationError(f"{text}, whose fences these are")
        key, fence = lease.key, lease.fence
        looked, refusal = False, None
        while not self._raise(connection, key, fence):
            seen = self._seen(connection, key)
            if seen is not None and seen > fence:
                raise LockLost(key, f"fence {fence} is older than {seen}, which has written since")
            if looked:  # the row is there, and a snapshot hides it
                raise StaleSnapshotError(key) from refusal
            if seen is None and (refusal := self._add(connection, key, fence)) is None:
                return
            looked = True

    def _raise(self, connection: Connection, key: str, fence: int) -> bool:
        """Raise the fence in the row of a lock; False when it is higher, or there is no row."""
        raising = (
            self.table.update()
            .where(*self._row(key), self.table.c.fence <= fence)
            .values(fence=fence)
        )
        return cast("CursorResult[Any]", connection.execute(raising)).rowcount > 0

    def _seen(self, connection: Connection, key: str) -> int | None:
        found = connection.execute(self.table.select().where(*self._row(key))).one_or_none()
        return None if found is None else int(found.fence)

    def _add(self, connection: Connection, key: str, fence: int) -> IntegrityError | None:
        """Add the row of a lock; return the refusal when somebody else did meanwhile."""
        row = {"app": self._app, "key": key, "fence": fence}
        try:
            with connection.begin_nested():
                connection.execute(self.table.insert().values(row))
        except IntegrityError as exc:
            return exc
        return None

    def _row(self, key: str) -> list[ColumnElement[bool]]:
        return [self.table.c.app == self._app, self.table.c.key == key]


def _check(lease: object) -> None:
    """Refuse what is no lease of one lock, without a look at its fence."""
    if not all(isinstance(getattr(lease, name, None), str) for name in ("app", "key")):
        several = "; guard each of its leases" if hasattr(lease, "leases") else ""
        kind = type(lease).__name__
        raise TypeError(f"lease must be a lease of one lock, not {kind}{several}")
