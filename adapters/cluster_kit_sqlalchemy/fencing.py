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

from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import BigInteger, Column, CursorResult, MetaData, String, Table
from sqlalchemy.exc import IntegrityError

from cluster_kit.errors import LockError, LockLost
from cluster_kit.names import MAX_APP_BYTES

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from cluster_kit.ports import Extensible

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
    """
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
        self.table: Table = fence_table(MetaData()) if table is None else table
        self._app = cluster.outlets.app

    async def guard(self, session: AsyncSession, lease: Fenced) -> None:
        """Let this transaction go on only if no newer holder of the lock has written.

        Call it before anything the lock protects is read or written.

        Raises:
            LockLost: a newer holder has, or the lease says itself that it is lost. Let it end the
                transaction.
            StaleSnapshotError: the transaction cannot see whether one has; begin it anew.
            SQLAlchemyError: of the database; at REPEATABLE READ and SERIALIZABLE also when another
                transaction has written the fence meanwhile: begin anew then.
        """
        await session.run_sync(self.guard_now, lease)

    def guard_now(self, session: Session, lease: Fenced) -> None:
        """As `guard`, in a session that is not async."""
        key, fence = lease.key, lease.fence
        looked = False
        while not self._raise(session, key, fence):
            seen = self._seen(session, key)
            if seen is not None and seen > fence:
                raise LockLost(key, f"fence {fence} is older than {seen}, which has written since")
            if looked:  # the row is there, and a snapshot hides it
                raise StaleSnapshotError(key)
            if seen is None and self._add(session, key, fence):
                return
            looked = True

    def _raise(self, session: Session, key: str, fence: int) -> bool:
        """Raise the fence in the row of a lock; False when it is higher, or there is no row."""
        raising = (
            self.table.update()
            .where(*self._row(key), self.table.c.fence <= fence)
            .values(fence=fence)
        )
        return cast("CursorResult[Any]", session.execute(raising)).rowcount > 0

    def _seen(self, session: Session, key: str) -> int | None:
        found = session.execute(self.table.select().where(*self._row(key))).one_or_none()
        return None if found is None else int(found.fence)

    def _add(self, session: Session, key: str, fence: int) -> bool:
        """Add the row of a lock; False when somebody else did meanwhile."""
        row = {"app": self._app, "key": key, "fence": fence}
        try:
            with session.begin_nested():
                session.execute(self.table.insert().values(row))
        except IntegrityError:
            return False
        return True

    def _row(self, key: str) -> list[ColumnElement[bool]]:
        return [self.table.c.app == self._app, self.table.c.key == key]
