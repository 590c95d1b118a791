"""Two instances of a web service: a row is read once, and again after a commit that changed it.

Needs SQLAlchemy and aiosqlite, pip install 'cluster-kit[sqlalchemy]' aiosqlite, and no server.
"""

from __future__ import annotations

import asyncio
import tempfile
from functools import partial

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cluster_kit import Cluster, Settings

SETTINGS = Settings(cache={"url": "memory://shop"})  # in earnest: CLUSTER_KIT_REDIS_URL
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def page(cluster: Cluster, engine: AsyncEngine, *link: *Link) -> None:
    async def read() -> str:
        print("reads the database")
        return str(await session.scalar(text("SELECT price FROM tea")))

    new = (await link[0].readline()).split()[1].decode().removeprefix("/price").strip("/")
    async with AsyncSession(engine) as session:
        if new:
            await session.execute(text("UPDATE tea SET price = :new"), {"new": new})
            await cluster.cache.invalidate_after_commit(session, "price")
            await (session.rollback() if new == "0" else session.commit())
        answer = new or await cluster.cache.wrap("price", read, ttl=3600)
    link[1].write(f"HTTP/1.0 200 OK\r\n\r\n{answer}".encode())
    link[1].close()


async def main(engine: AsyncEngine) -> None:
    async with engine.begin() as setup:
        await setup.execute(text("CREATE TABLE tea AS SELECT 3 AS price"))
    both = one, two = Cluster("shop", settings=SETTINGS), Cluster("shop", settings=SETTINGS)
    pages = [await asyncio.start_server(partial(page, c, engine), "127.0.0.1") for c in both]
    async with one, two, pages[0], pages[1]:
        for n, path in enumerate(("/price", "/price", "/price/0", "/price", "/price/4", "/price")):
            reader, writer = await asyncio.open_connection(*pages[n % 2].sockets[0].getsockname())
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            print(path, "->", (await reader.read()).decode().split()[-1])
            writer.close()
            await asyncio.sleep(0.2)  # what was committed is told to all
    await engine.dispose()


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(create_async_engine(f"sqlite+aiosqlite:///{folder}/shop.db")))
# Output:
# reads the database
# /price -> 3
# /price -> 3
# /price/0 -> 0
# /price -> 3
# /price/4 -> 4
# reads the database
# /price -> 4
