"""Three brokers that are one: what becomes of tasks when the one that leads their queue goes.

``python -m pytest integration/load/three_nodes.py``. It takes five minutes and three nodes of this
machine, so that it is no part of ``make test``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cluster_kit.errors import ConnectionLost, PublishUnconfirmed
from cluster_kit.names import new_id
from cluster_kit.ports import Received
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.servers import NodeUnavailableError
from cluster_kit.testing.servers.local import LocalNode, local_node
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Bench, bench

pytestmark = [
    pytest.mark.broker,
    pytest.mark.asyncio,
    pytest.mark.timeout(600),
]

BEFORE, AFTER = 200, 200  # tasks stored before the leader goes, and at least after it


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[LocalNode]]:
    """Three nodes in one cluster. The first has what the others need to find each other."""
    try:
        first = local_node()
    except NodeUnavailableError as exc:
        pytest.skip(f"a cluster is made of nodes of this machine: {exc}")
    made = [first]
    try:
        made += [first.member(), first.member()]
        yield made
    finally:
        for node in reversed(made):
            node.close()


class Acker:
    """Acknowledges every delivery; counts how often each task came."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self._tasks = Supervisor()

    def __call__(self, received: Received) -> None:
        self._tasks.spawn(self._ack(received), name="acker")

    async def _ack(self, received: Received) -> None:
        await asyncio.sleep(0)
        with suppress(ConnectionLost):  # it comes again
            await received.ack()
            self.taken.append(received.envelope.id)


async def store(made: Bench, stored: list[str], unsure: list[str]) -> None:
    """Store one more task; what the adapter cannot tell of may be there or not."""
    task = made.task()
    try:
        await made.adapter.publish(task, timeout=60.0)
    except PublishUnconfirmed:
        unsure.append(task.id)
    else:
        stored.append(task.id)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_the_leader_of_a_queue_goes_and_nothing_is_lost(
    nodes: list[LocalNode], *, kill: bool
) -> None:
    _, leader, follower = nodes
    vhost = f"leader-{new_id()[:8]}"
    leader.ctl("add_vhost", vhost)
    leader.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    stored: list[str] = []
    unsure: list[str] = []
    acker = Acker()
    hosts = ",".join(node.url.split("@")[1].rstrip("/") for node in (leader, follower))
    async with (
        bench(f"amqp://guest:guest@{hosts}/{vhost}?shuffle=false") as near,
        bench(f"{follower.url}{vhost}", app=near.app) as far,
    ):
        await store(near, stored, unsure)  # makes the queue, on the node it is connected to
        assert leads(leader, vhost, near.queue().full)
        for made in (near, far):
            await made.adapter.consume(made.queue(), prefetch=8, on_delivery=acker)
        await asyncio.gather(*(store(made, stored, unsure) for made in [near, far] * (BEFORE // 2)))
        going = asyncio.create_task(asyncio.to_thread(leader.stop, kill=kill))
        while not going.done() or len(stored) < BEFORE + AFTER:
            await asyncio.gather(*(store(made, stored, unsure) for made in [near, far] * 4))
        await going

        await eventually(lambda: set(stored) - set(acker.taken), lambda left: not left, timeout=60)
        await eventually(
            lambda: {made.adapter.health().status for made in (near, far)} == {"ok"}, timeout=60
        )
        await asyncio.to_thread(leader.start)
        assert near.heard("connection.lost")
        assert far.heard("connection.lost") == []
        assert set(acker.taken) <= {*stored, *unsure}


def leads(node: LocalNode, vhost: str, queue: str) -> bool:
    """Whether this node leads a queue."""
    rows = node.ctl("-q", "list_queues", "-p", vhost, "name", "leader", "--formatter", "csv")
    return any(queue in row and node.name in row for row in rows.splitlines())
