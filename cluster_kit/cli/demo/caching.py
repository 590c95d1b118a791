"""Caches: what an instance reads, and what is promised about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from cluster_kit.cli.demo.journal import BrokenPromise, require
from cluster_kit.cli.demo.promise import LATE, Promise, milliseconds
from cluster_kit.clock import SystemClock
from cluster_kit.names import new_id

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Event, Order, Reporter
    from cluster_kit.cli.demo.stage import Instance, Stage
    from cluster_kit.cluster import Cluster
    from cluster_kit.supervisor import Supervisor

CACHE = "products"
CALLERS = 50
"""Callers in each instance who ask for one key at the same time."""

LOAD_TAKES = 0.05
LONG_LOAD_TAKES = 0.5
"""Seconds; a long load is under way when its value is invalidated."""

OLD, NEW = "old", "new"


class Reading:
    """Reads and deletes values of a cache when it is told to.

    Args:
        cluster: of the instance.
        reporter: takes what is read.
        supervisor: starts the callers.
    """

    def __init__(self, cluster: Cluster, reporter: Reporter, supervisor: Supervisor) -> None:
        self.orders: Mapping[str, Order] = {"read": self._read, "delete": self._delete}
        self._caches = cluster.caches
        self._reporter = reporter
        self._supervisor = supervisor

    async def prepare(self) -> None:
        """Make the cache."""
        await self._caches.create_cache(CACHE, ttl=60)

    async def _read(self, about: Mapping[str, Any]) -> None:
        """Let many ask for a key at once, whose source says `value` now."""
        key, order, callers = about["key"], about["id"], about["callers"]

        async def load() -> str:
            self._reporter.note("loading", key, order)
            await asyncio.sleep(about["takes"])
            return str(about["value"])

        cache = self._caches.get_cache(CACHE)
        values = await self._supervisor.run_all(
            [partial(cache.wrap, key, load)] * callers, limit=callers
        )
        self._reporter.note("read", key, order, detail=",".join(sorted(set(map(str, values)))))

    async def _delete(self, about: Mapping[str, Any]) -> None:
        await self._caches.get_cache(CACHE).delete(about["key"])
        self._reporter.note("deleted", about["key"], about["id"])


async def loaded_once(stage: Stage) -> str:
    """However many ask at once, the source is asked once: by each instance, or by one of all."""
    order = await _all_read(stage, "popular", NEW)
    loads = Counter(event.instance for event in stage.journal.of("loading", [order]))
    most = 1 if stage.shared_store else len(stage.names)
    require(max(loads.values()) == 1, f"one instance loaded {max(loads.values())} times")
    require(loads.total() <= most, f"loaded {loads.total()} times")
    _check_read(stage, order, NEW)
    where = "one store" if stage.shared_store else "no store"
    callers = CALLERS * len(stage.names)
    return f"{callers} callers on {len(stage.names)} instances, {where}: {loads.total()} loaded"


async def invalidated(stage: Stage) -> str:
    """A value that is deleted on one instance is gone on all, also where it was being loaded."""
    _check_read(stage, await _all_read(stage, "price", OLD), OLD)
    loader, deleter = stage.instances[0], stage.instances[-1]
    long_load = _tell_read(loader, "stock", OLD, takes=LONG_LOAD_TAKES)
    await stage.journal.until(
        lambda: bool(stage.journal.of("loading", [long_load])), "nothing was loaded"
    )
    deleted = [await _deleted(stage, deleter, key) for key in ("stock", "price")]
    stale, gone = await _until_gone(stage, "price", since=deleted[-1].at)
    await stage.journal.until(
        lambda: bool(stage.journal.of("read", [long_load])), "the load did not end"
    )
    _check_read(stage, await _all_read(stage, "stock", NEW), NEW)
    return (
        f"deleted on {deleter.name}: gone on all {len(stage.names)} within {milliseconds(gone)}, "
        f"{stale} stale reads; a load under way: not kept"
    )


CACHING = (
    Promise("many callers cause one load", loaded_once),
    Promise("what is invalidated is gone everywhere", invalidated),
)


async def _until_gone(stage: Stage, key: str, *, since: float) -> tuple[int, float]:
    """Read until nobody gets the old value; return how often it was got, and the seconds."""
    stale, deadline = 0, SystemClock().monotonic() + LATE
    while SystemClock().monotonic() < deadline:
        order = await _all_read(stage, key, NEW, takes=0)
        reads = stage.journal.of("read", [order])
        old = sum(OLD in event.detail for event in reads)
        if old == 0:
            _check_read(stage, order, NEW)
            return stale, max(event.at for event in reads) - since
        stale += old
    raise BrokenPromise(f"the old value was still there after {LATE:g} s")


async def _all_read(stage: Stage, key: str, value: str, *, takes: float = LOAD_TAKES) -> str:
    """Let every instance read a key whose source says `value`; return the order's id."""
    order = new_id()
    for instance in stage.instances:
        _tell_read(instance, key, value, order=order, takes=takes)
    await stage.journal.until(
        lambda: len(stage.journal.of("read", [order])) == len(stage.instances),
        f"not every instance could read {key!r}",
    )
    return order


def _tell_read(
    instance: Instance, key: str, value: str, *, order: str = "", takes: float = LOAD_TAKES
) -> str:
    order = order or new_id()
    instance.tell("read", key=key, value=value, id=order, callers=CALLERS, takes=takes)
    return order


async def _deleted(stage: Stage, instance: Instance, key: str) -> Event:
    order = new_id()
    instance.tell("delete", key=key, id=order)
    await stage.journal.until(
        lambda: bool(stage.journal.of("deleted", [order])), f"{key!r} was not deleted"
    )
    return stage.journal.of("deleted", [order])[0]


def _check_read(stage: Stage, order: str, value: str) -> None:
    for event in stage.journal.of("read", [order]):
        wrong = f"{event.instance} read {event.detail!r} instead of {value!r}"
        require(event.detail == value, wrong)
