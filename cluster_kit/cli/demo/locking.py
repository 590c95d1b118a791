"""Locks: what an instance does with them, and what is promised about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cluster_kit.cli.demo.journal import require
from cluster_kit.cli.demo.promise import Promise, milliseconds
from cluster_kit.errors import LockLost

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Event, OfLock, Order, Reporter
    from cluster_kit.cli.demo.stage import Stage
    from cluster_kit.cluster import Cluster

TILL, SAFE = "till", "safe"
TURNS = 5
INSIDE = 0.01
"""Seconds of a turn."""

TTL = 1.0
"""Seconds after which the lock of a holder that is cut off is free, where nobody tells."""


class Locking:
    """Takes locks when it is told to.

    Args:
        cluster: of the instance.
        reporter: takes who is inside.
    """

    def __init__(self, cluster: Cluster, reporter: Reporter) -> None:
        self.orders: Mapping[str, Order] = {"take turns": self._take_turns, "keep": self._keep}
        self._locks = cluster.locks
        self._reporter = reporter

    async def prepare(self) -> None:
        """Do nothing: a lock is there when it is asked for."""

    async def _take_turns(self, about: Mapping[str, Any]) -> None:
        for _ in range(TURNS):
            async with self._locks.hold(about["key"]) as lease:
                self._reporter.note("entered", about["key"], number=lease.fence)
                await asyncio.sleep(INSIDE)
                self._reporter.note("left", about["key"])

    async def _keep(self, about: Mapping[str, Any]) -> None:
        """Hold a lock for as long as it lasts, or only come to hold it."""
        key = about["key"]
        try:
            async with self._locks.hold(key, ttl=TTL) as lease:
                self._reporter.note("entered", key, number=lease.fence)
                if about["stay"]:
                    await self._stay(key)
        except LockLost as exc:
            self._reporter.note("lost", key, detail=str(exc))

    async def _stay(self, key: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._reporter.note("left", key)


async def one_at_a_time(stage: Stage) -> str:
    """Of all who want a lock, one has it."""
    stage.tell_all("take turns", key=TILL)
    turns = TURNS * len(stage.names)
    await stage.journal.until(
        lambda: len(stage.journal.on("left", TILL)) == turns, f"not all of {turns} had their turn"
    )
    entered = sorted(stage.journal.on("entered", TILL), key=lambda event: event.at)
    left = sorted(stage.journal.on("left", TILL), key=lambda event: event.at)
    together = sum(later.at < earlier.at for earlier, later in zip(left, entered[1:], strict=False))
    require(together == 0, f"{together} times two were inside")
    grew = sum(later.number > earlier.number for earlier, later in pairwise(entered))
    require(grew == turns - 1, f"the fence grew at {grew} of {turns - 1} changes")
    return f"{turns} turns of {len(stage.names)} instances: {together} times two at once"


async def loss_is_told(stage: Stage) -> str:
    """A holder that is cut off is cancelled and told; another one may enter."""
    holder, other = stage.instances[-1], stage.instances[0]
    holder.tell("keep", key=SAFE, stay=True)
    entered = await _first(stage, "entered", holder.name)
    other.tell("keep", key=SAFE, stay=False)
    async with stage.cut_off(holder):
        followed = await _first(stage, "entered", other.name)
        await _first(stage, "lost", holder.name)
    ahead = (await _first(stage, "left", holder.name)).at - followed.at
    require(ahead < stage.hand_over, f"{other.name} was inside {milliseconds(ahead)} earlier")
    require(followed.number > entered.number, "the fence did not grow")
    gap = f"{milliseconds(abs(ahead))} {'later' if ahead < 0 else 'earlier'}"
    return f"{holder.name} cut off: cancelled, LockLost; {other.name} entered {gap}, higher fence"


LOCKING = (
    Promise("a lock lets one in at a time", one_at_a_time),
    Promise("who loses a lock is told", loss_is_told),
)


async def _first(stage: Stage, kind: OfLock, name: str) -> Event:
    await stage.journal.until(
        lambda: bool(stage.journal.on(kind, SAFE, name)), f"{name} never {kind} the lock"
    )
    return stage.journal.on(kind, SAFE, name)[0]
