"""A holder that was stopped for too long, and a database that refuses it.

Needs SQLAlchemy, pip install 'cluster-kit[sqlalchemy]', and no server: SQLite and locks in memory.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, select, update
from sqlalchemy.orm import Session

from cluster_kit import Cluster
from cluster_kit.errors import LockLost
from cluster_kit_sqlalchemy import Fences, fence_table

first, second = Cluster("shop"), Cluster("shop")
metadata, engine = MetaData(), create_engine("sqlite://")
accounts = Table("accounts", metadata, Column("balance", Integer))
fences = Fences(first, table=fence_table(metadata))


class Holder(NamedTuple):
    """What a holder knows that looks at nothing more before it writes."""

    key: str
    fence: int
    app: str = "shop"


def pay(holder: Holder, amount: int) -> None:
    with Session(engine) as session, session.begin():
        fences.guard_blocking(session, holder)
        balance = session.execute(select(accounts.c.balance)).scalar_one() - amount
        session.execute(update(accounts).values(balance=balance))
        print("paid", amount, "left", balance)


async def main() -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(accounts).values(balance=100))
    async with first, second:
        lease = await first.locks.acquire("ann", ttl=0.3, renew=False)
        stopped = Holder(lease.key, lease.fence)  # and is stopped here, for longer than its ttl
        async with second.locks.hold("ann") as newer:
            pay(Holder(newer.key, newer.fence), 30)
        try:
            pay(stopped, 50)
        except LockLost as error:
            print("stale holder refused", "is older than" in str(error))


asyncio.run(main())

# Output:
# paid 30 left 70
# stale holder refused True
