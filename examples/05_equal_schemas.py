"""Who commits a change of the schema tells every instance; what is rolled back, nobody hears.

Needs SQLAlchemy and aiosqlite, pip install 'cluster-kit[sqlalchemy]' aiosqlite, and no server.
"""

from __future__ import annotations

import asyncio
import tempfile

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cluster_kit import Cluster, Plugin


class Schemas(Plugin):
    """Holds the columns of a table, as the database has them."""

    name = "schemas"

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine, self.columns, self.told = engine, list[str](), asyncio.Queue[str]()

    async def load(self) -> None:
        async with AsyncSession(self.engine) as session:
            self.columns = list(await session.scalars(text("SELECT name FROM columns")))

    async def add(self, session: AsyncSession, column: str) -> None:
        await session.execute(text("INSERT INTO columns VALUES (:name)"), {"name": column})
        publish = self.cluster.sync_messages.publish  # `send_sync_message` tells all others alone
        await publish(self.name, {"added": column}, transaction=session, skip_self=False)

    async def handle_sync_message(self, message: dict[str, str]) -> None:
        await self.load()  # a message is a nudge; the truth is in the database
        await self.told.put(message["added"])

    async def on_sync_gap(self) -> None:
        await self.load()


async def main(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE columns (name TEXT)"))
    plugins = [Schemas(engine) for _ in range(3)]
    one, two, three = (Cluster("shop", plugins=[plugin]) for plugin in plugins)
    async with one, two, three, AsyncSession(engine) as session:
        await plugins[0].add(session, "mistake")
        await session.rollback()
        await plugins[0].add(session, "price")
        await session.commit()
        for plugin in plugins:
            print("told of", await plugin.told.get(), "and has", *plugin.columns)
    await engine.dispose()


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(create_async_engine(f"sqlite+aiosqlite:///{folder}/shop.db")))
# Output:
# told of price and has price
# told of price and has price
# told of price and has price
