"""Several instances share the work of a channel; one of them is busy and takes nothing.

Clusters of one process are instances of one application, as processes on one RabbitMQ are. That
is how to try out, and to test, what many instances do.

Needs no server. The same on RabbitMQ: CLUSTER_KIT_AMQP_URL=amqp://guest:guest@localhost/
"""

from __future__ import annotations

import asyncio

from cluster_kit import Cluster, Settings

TASKS = 12
packed: list[tuple[int, str]] = []
all_packed = asyncio.Event()


def make_instance(name: str, *, busy: bool = False) -> Cluster:
    cluster = Cluster("shop", settings=Settings(instance_id=name))

    async def pack(parcel: int) -> None:
        await asyncio.sleep(0.02)
        packed.append((parcel, name))
        if len(packed) == TASKS:
            all_packed.set()

    cluster.event_queue.subscribe("parcels", pack, concurrency=2, idle=lambda: not busy)
    return cluster


async def main() -> None:
    ann, bob, eve = make_instance("ann"), make_instance("bob"), make_instance("eve", busy=True)
    async with ann, bob, eve:
        await ann.event_queue.publish_many("parcels", range(TASKS))
        await all_packed.wait()
    once = sorted(parcel for parcel, _ in packed) == list(range(TASKS))
    print(f"{len(packed)} parcels, each packed once: {once}")
    print("by", ", ".join(sorted({name for _, name in packed})))


asyncio.run(main())

# Output:
# 12 parcels, each packed once: True
# by ann, bob
