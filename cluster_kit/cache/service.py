"""The caches of an instance."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Unpack

from cluster_kit.cache.backplane import Backplane
from cluster_kit.cache.cache import Cache
from cluster_kit.cache.context import CacheContext
from cluster_kit.cache.loaders import Runner
from cluster_kit.cache.options import CacheOptions, CacheValues, make_options
from cluster_kit.cache.stats import CacheStats
from cluster_kit.cache.stores import Stores
from cluster_kit.cache.upkeep import Upkeep
from cluster_kit.clock import SystemClock
from cluster_kit.errors import ConfigurationError, NotStartedError
from cluster_kit.loops import OwnLoop
from cluster_kit.pubsub import PubSubManager
from cluster_kit.pubsub.transports import Transports
from cluster_kit.supervisor import logged
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.after_commit import AfterCommit
    from cluster_kit.cache.engine import Engine
    from cluster_kit.clock import Clock
    from cluster_kit.ports import AdapterContext, CacheStore, Health, PubSubAdapter
    from cluster_kit.registry import AdapterRegistry
    from cluster_kit.settings import Settings
    from cluster_kit.supervisor import Supervisor
    from cluster_kit.telemetry import Telemetry

log = logging.getLogger(__name__)

REALM = "cache"
"""What keeps invalidations apart from the messages of others."""

_DEFAULT = ""  # no name, so that a cache may be called what the application is called
_OF_DEFAULT: CacheValues = {"prefix": "ck-default"}


class CacheManager:
    """Makes caches and finds them again. Got from `Cluster.caches`."""

    def __init__(  # noqa: PLR0913 - what an instance's caches stand on
        self,
        app: str,
        instance_id: str,
        settings: Settings,
        *,
        registry: AdapterRegistry,
        telemetry: Telemetry,
        after_commit: AfterCommit,
        clock: Clock | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._telemetry = telemetry
        self._after_commit = after_commit
        self._clock = clock or SystemClock()
        self._stores = Stores(settings, registry)
        pubsub = settings.pubsub.but(publish_timeout=settings.cache.publish_timeout)
        self._pubsub = PubSubManager(
            instance_id,
            pubsub,
            telemetry=telemetry,
            realm=REALM,
            transports=Transports(settings.cache.transport),
            clock=clock,
        )
        self._caches: dict[str, Cache] = {}
        self._engines: dict[str, Engine] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._around: CacheContext | None = None
        self._upkeep: Upkeep | None = None
        self._linked = False
        self.default: Cache = self._add(
            _DEFAULT, make_options(app, settings.cache.ttl, _OF_DEFAULT)
        )

    # --- caches --------------------------------------------------------------------------

    async def create_cache(self, name: str, **options: Unpack[CacheValues]) -> Cache:
        """Return a new cache, or the one that was made by the same call. Legal before start.

        Args:
            name: of the cache, by which `get_cache` finds it.
            options: see below; durations are seconds or a timedelta.

        Options:
            prefix: of its keys in the store and of what it tells other instances; the name by
                default. Each cache of an instance has one of its own.
            store: ``memory``, ``redis``, ``memcached`` or one of `register_store`; by default
                that of the setting ``cache.url``.
            ttl: of values that name none; by default that of the setting ``cache.ttl``: none.
            l1_size: most values held in this process, 10,000 by default. 0 asks the store always.
            l1_ttl: how long a value of a store is held here at most. By default 30; without a
                backplane nothing of a store is held, unless this is given.
            backplane: whether instances tell each other what they invalidate; by default where
                publish and subscribe reaches them.
            fail_safe: how long a value that is over stands in for one that cannot be loaded.
            soft_timeout: how long a caller waits for a load when there is such a value.
            hard_timeout: how long a caller waits for a load at most, 30 by default.
            eager: share of its ttl, such as 0.8, after which a value that is wrapped is loaded
                anew in the background.
            jitter: share by which each ttl is shortened at random at most.
            negative_ttl: of a None that was loaded.
            copy: ``deep`` gives every caller a value of its own, ``none`` the very object.

        Raises:
            ConfigurationError: an option is wrong, or the name or prefix is taken.
            AdapterUnavailableError: the store's driver is not installed.
            ConnectError: the store cannot be connected.
            TopologyError: the broker has something else under a name that this needs.
            LifecycleError: the cluster runs on another event loop.
        """
        self._refuse_elsewhere()
        made = make_options(name, self._settings.cache.ttl, options)
        known = self._caches.get(made.name)
        if known is None:
            self._stores.check(made, (cache.options for cache in self._caches.values()))
            known = self._add(made.name, made)
        elif known.options != made:
            other = ", ".join(known.options.differing(made))
            raise ConfigurationError(f"there is a cache {name!r} with another {other}")
        if self._around is not None:
            await self._connect(known)
        return known

    def get_cache(self, name: str) -> Cache:
        """Return a cache that was made.

        Raises:
            ConfigurationError: there is none of this name, or it is no string.
        """
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"name is that of a cache, not {type(name).__name__}")
        found = self._caches.get(name)
        if found is None and name == self._app:
            return self.default
        if found is None or name == _DEFAULT:
            hint = suggestion(name, filter(None, self._caches))
            text = f"there is no cache {name!r}{hint or '; make it with create_cache'}"
            raise ConfigurationError(text)
        return found

    def register_store(self, name: str, factory: Callable[[str], CacheStore]) -> None:
        """Add a kind of store for `create_cache`.

        Args:
            name: by which it is chosen.
            factory: ``factory(url)``, given the URL of the default store, returns a store as in
                `cluster_kit.ports.CacheStore`.

        Raises:
            ConfigurationError: the name is malformed, or that of a store there is.
            LifecycleError: the cluster runs on another event loop.
        """
        self._refuse_elsewhere()
        self._stores.register(name, factory)

    # --- looking after it ----------------------------------------------------------------

    def stats(self) -> dict[str, CacheStats]:
        """Return this instance's counters by cache, since each was made."""
        return {name or self._app: cache.stats() for name, cache in self._caches.items()}

    def troubles(self) -> list[str]:
        """Return what is wrong with which cache; empty when all is well."""
        return [trouble for cache in self._caches.values() for trouble in cache.troubles()]

    def health(self) -> Health | None:
        """Return the state of the stores in use and of the caches; None for nothing to say."""
        return self._stores.health(self.troubles(), self._clock.wall())

    # --- life, led by Cluster ------------------------------------------------------------

    async def connect(self, supervisor: Supervisor, context: AdapterContext) -> None:
        """Make stores from now on, and connect the default one if somebody has chosen it.

        One that the URL of a server implies, or whose URL may be meant for a store of
        `register_store`, is connected by its first use.

        Raises `ConnectError`, or `ConfigurationError` for a wrong URL or a driver that lacks.
        """
        self._stores.open(context, supervisor)
        self._stores.resolve()
        if self._settings.cache.url is not None and not self._stores.extended:
            await self._stores.connect(None)

    async def open(self, adapter: PubSubAdapter | None, supervisor: Supervisor) -> None:
        """Let the caches work, after `connect`. Stores are connected for those that were made.

        Args:
            adapter: of publish and subscribe, connected; None where there is none.
            supervisor: starts what runs in the background.

        Raises:
            ConnectError: a store cannot be connected.
            ConfigurationError, TopologyError: as `create_cache`.
        """
        if adapter is not None:
            await self._pubsub.open(adapter, supervisor)
            self._pubsub.start()
            self._linked = True
        self._around = CacheContext(
            app=self._app,
            settings=self._settings.cache,
            supervisor=supervisor,
            runner=Runner(supervisor),
            clock=self._clock,
            random=random.Random(),
            loop=OwnLoop("cache"),
            report=self._telemetry.emit,
            after_commit=self._after_commit,
        )
        self._upkeep = Upkeep(self._engines, supervisor, self._clock, self._look)
        for name, cache in self._caches.items():
            if name != _DEFAULT:
                await self._connect(cache)

    async def close(self) -> None:
        """Let the caches rest; what they hold here is gone."""
        around, self._around, self._linked = self._around, None, False
        self._opening.clear()  # who waits there finds that this is over
        engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.invalidation.stopping = True
        for cache in self._caches.values():
            cache.use(None)
        # Side by side: each may take a second, and what is still to be told waits for the last.
        if around is not None:
            loads = [partial(_end_loads, engine) for engine in engines.values()]
            await around.supervisor.run_all(loads, limit=max(1, len(loads)))
        if self._upkeep is not None:
            await self._upkeep.close()
        if around is not None:
            links = [partial(_leave, engine) for engine in engines.values()]
            await around.supervisor.run_all(links, limit=max(1, len(links)))
        await self._pubsub.close()
        await self._stores.close()

    # --- inside --------------------------------------------------------------------------

    def _refuse_elsewhere(self) -> None:
        if self._around is not None:
            self._around.loop.check()

    def _add(self, name: str, options: CacheOptions) -> Cache:
        cache = Cache(options, self._clock, CacheStats(), partial(self._engine_of, name))
        self._caches[name] = cache
        return cache

    async def _connect(self, cache: Cache) -> None:
        await cache.prepare()
        await self._stores.connect(cache.options.store)

    async def _engine_of(self, name: str) -> Engine:
        """Return what makes a cache work, made when it is first used."""
        from cluster_kit.cache.engine import Engine  # noqa: PLC0415 - most programs use no cache

        self._refuse_elsewhere()
        cache = self._caches[name]
        async with self._opening.setdefault(name, asyncio.Lock()):
            if (engine := self._engines.get(name)) is not None:
                return engine
            if (around := self._around) is None:
                raise NotStartedError(f"cache {cache.name!r}")
            connector = self._stores.connector(cache.options.store)
            backplane = self._backplane(cache.options)
            engine = Engine(cache.options, around, connector, backplane, cache.counted)
            if backplane is not None:
                await backplane.open(engine.invalidation, self._settings.cache.publish_timeout)
            if self._around is not around:  # a stop came first
                await _leave(engine)
                raise NotStartedError(f"cache {cache.name!r}")
            self._engines[name] = engine
            cache.use(engine)
            return engine

    def _backplane(self, options: CacheOptions) -> Backplane | None:
        if not self._stores.tells(options, linked=self._linked):
            return None
        clock, beat = self._clock.monotonic, self._settings.cache.beat
        return Backplane(self._pubsub, options.name, options.prefix, clock, beat)

    def _look(self, name: str, live: bool) -> None:  # noqa: FBT001 - all there is to say
        """Take note that the link of a cache came or went."""
        self._caches[name].look()
        self._telemetry.emit("cache.linked", cache=name or self._app, live=live)


async def _end_loads(engine: Engine) -> None:
    async with logged(f"ending the loads of cache {engine.name!r}"):
        await engine.loading.stop()


async def _leave(engine: Engine) -> None:
    if engine.backplane is not None:
        async with logged("leaving a cache's backplane"):
            await engine.backplane.close()
