"""What makes a cache work while its cluster runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.after_commit import Parcel
from cluster_kit.cache.counters import MOST_COUNTERS, LocalCounters, StoreCounters
from cluster_kit.cache.guard import Guard
from cluster_kit.cache.invalidation import Invalidation
from cluster_kit.cache.loading import Loading
from cluster_kit.cache.local import Local
from cluster_kit.cache.names import Names
from cluster_kit.cache.objects import Objects
from cluster_kit.cache.remote import Remote
from cluster_kit.cache.shelf import Shelf
from cluster_kit.cache.tools import Tools
from cluster_kit.cache.values import Values
from cluster_kit.codec import JsonCodec
from cluster_kit.names import new_id

if TYPE_CHECKING:
    from cluster_kit.cache.backplane import Backplane
    from cluster_kit.cache.changes import Change
    from cluster_kit.cache.connector import Connector
    from cluster_kit.cache.context import CacheContext
    from cluster_kit.cache.counters import Counters
    from cluster_kit.cache.options import CacheOptions
    from cluster_kit.cache.stats import CacheStats
    from cluster_kit.loops import OwnLoop
    from cluster_kit.supervisor import Supervisor


class Engine:
    """The parts of one cache, put together.

    Args:
        options: of the cache.
        around: what the caches of an instance share.
        connector: to its store; None for none.
        backplane: to other instances; None for none.
        stats: counts.

    Attributes:
        supervisor: starts what runs in the background.
        loop: where it may be used.
        backplane: see there.
        local: what is held in this process.
        shelf: both levels.
        loading: the loads.
        invalidation: tells who must forget.
        objects: values changed field by field.
        counters: of the cache.
    """

    def __init__(
        self,
        options: CacheOptions,
        around: CacheContext,
        connector: Connector | None,
        backplane: Backplane | None,
        stats: CacheStats,
    ) -> None:
        self._options = options
        self._around = around
        self._stats = stats
        self._guard = None if connector is None else self._make_guard(connector)
        self.supervisor: Supervisor = around.supervisor
        self.loop: OwnLoop = around.loop
        self.backplane: Backplane | None = backplane
        names = Names(around.app, options.prefix)
        remote = None
        if self._guard is not None:
            remote = Remote(self._guard, names, around.clock, self._corrupt)
        size = options.l1_size if remote is None or backplane or options.l1_ttl else 0
        self.local: Local = Local(size, around.settings.l1_max_bytes, around.clock.monotonic)
        values = Values(options.copy, encoded=remote is not None, limit=self._limit(connector))
        self.shelf: Shelf = self._make_shelf(values, remote)
        self.loading: Loading = Loading(self._tools())
        counters = LocalCounters(max(MOST_COUNTERS, options.l1_size), around.clock)
        self.invalidation: Invalidation = Invalidation(
            self.shelf, self.loading, counters, backplane, self._tools()
        )
        self.counters: Counters = counters
        if remote is not None:
            self.counters = StoreCounters(remote, self.invalidation.settle_counters)
        self.objects: Objects = Objects(values, self.invalidation, self._tools())

    @property
    def name(self) -> str:
        """Return the name of the cache."""
        return self._options.name

    @property
    def live(self) -> bool:
        """Whether invalidations of other instances arrive, as far as known."""
        return self.backplane is None or self.backplane.live

    async def apply_after_commit(self, transaction: object, change: Change) -> None:
        """Carry out a change once a transaction is committed, or never."""

        async def send() -> None:
            await self.invalidation.apply(change)

        parcel = Parcel(
            kind="cache",
            channel=self._options.name,
            id=new_id(),
            body=JsonCodec().encode(change.message()),
            send=send,
        )
        await self._around.after_commit.join(transaction, parcel)

    def troubles(self) -> list[str]:
        """Return what is wrong; empty when all is well."""
        name, found = self._options.name, list[str]()
        if self._guard is not None and self._guard.trouble:
            found.append(f"cache {name!r}: {self._guard.trouble}")
        if not self.live:
            found.append(f"cache {name!r}: invalidations of other instances may be missed")
        if behind := self.invalidation.behind:
            found.append(f"cache {name!r}: {behind} invalidations wait to be told")
        return found

    # --- making ----------------------------------------------------------------------------------

    def _make_guard(self, connector: Connector) -> Guard:
        return Guard(
            self._options.name,
            connector,
            timeout=self._around.settings.timeout,
            clock=self._around.clock,
            failed=self._failed,
        )

    def _make_shelf(self, values: Values, remote: Remote | None) -> Shelf:
        options, around = self._options, self._around
        default = None if remote is None else around.settings.l1_ttl
        return Shelf(
            options,
            values,
            self.local,
            remote,
            l1_ttl=default if options.l1_ttl is None else options.l1_ttl,
            degraded_ttl=around.settings.degraded_ttl,
            clock=around.clock,
            random=around.random,
            stats=self._stats,
            live=lambda: self.live,
            corrupt=self._corrupt,
        )

    def _tools(self) -> Tools:
        around = self._around
        return Tools(
            shelf=self.shelf,
            options=self._options,
            supervisor=around.supervisor,
            runner=around.runner,
            clock=around.clock,
            random=around.random,
            heard=self.backplane is not None,
            promise_ttl=around.settings.promise_ttl,
            stats=self._stats,
            report=around.report,
        )

    def _limit(self, connector: Connector | None) -> int:
        own = self._around.settings.max_value_bytes
        most = None if connector is None else connector.store.capabilities.max_value_bytes
        return own if most is None else min(own, most)

    # --- what goes wrong -------------------------------------------------------------------------

    def _corrupt(self, key: str) -> None:
        self._stats.corrupt += 1
        self._around.report("cache.corrupt", cache=self._options.name, key=key)

    def _failed(self, reason: str) -> None:
        self._stats.unavailable += 1
        self._around.report("cache.unavailable", cache=self._options.name, reason=reason)
