"""cluster-kit's event queue again, whose first retry of a task begins where it failed."""

from __future__ import annotations

from functools import partial

from benchmarks.peer import AsyncPeer
from benchmarks.peers.cluster_kit import QUEUES, consumer, publisher

PEER = AsyncPeer(
    title="cluster-kit, in place",
    packages=("cluster-kit",),
    publisher=publisher,
    consumer=partial(consumer, immediate=1),
    queues=QUEUES,
    workloads=("retry",),
    note="RetryPolicy(immediate=1): a retry is one more call of the handler; nothing is stored, so "
    "a crash forgets the attempt before it",
)
