"""A process of a load run of locks: does its sections, one after the other, until there are enough.

``python -m integration.load.locks_worker PORT SLOT TTL``; the server of the locks is in
``CLUSTER_KIT_LOCKS__URL``, the application in ``CLUSTER_KIT_APP``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable

from cluster_kit import Cluster, Lease
from cluster_kit.errors import LockLost, LockTimeout, LockUnavailable

KEY = "number"
_SECTION_SECONDS = 0.004

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]

Ask = Callable[[str], Awaitable[str]]
"""Sends a line to the recorder and returns its answer."""


async def work(cluster: Cluster, ask: Ask, slot: int, ttl: float) -> None:
    """Do sections until the recorder has enough of this slot."""
    while await ask(f"more {slot}") == "yes":
        try:
            async with cluster.locks.hold(KEY, ttl=ttl, timeout=30) as lease:
                await section(lease, ask, slot)
        except LockLost:
            await ask(f"lost {slot}")
        except (LockTimeout, LockUnavailable):
            continue


async def section(lease: Lease, ask: Ask, slot: int) -> None:
    """Read, think, write. Whoever lost the lock hears of it in `fence`, before anything is told."""
    answer = await ask(f"enter {slot} {lease.fence}")
    if answer == "refused":
        return
    await asyncio.sleep(_SECTION_SECONDS)
    await ask(f"write {slot} {lease.fence} {int(answer) + 1}")


async def main(port: int, slot: int, ttl: float) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    link: Link | None = None

    async def ask(line: str) -> str:
        nonlocal link
        kept, link = link or await asyncio.open_connection("127.0.0.1", port), None
        kept[1].write(f"{line}\n".encode())
        answer = await kept[0].readline()
        link = kept  # not after a cancellation: its answer would be that to the next question
        if not answer:
            sys.exit("the recorder is gone")
        return answer.decode().strip()

    async with Cluster() as cluster:
        await work(cluster, ask, slot, ttl)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
