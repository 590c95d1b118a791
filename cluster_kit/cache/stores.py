"""Which stores there are, by name, and those in use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from cluster_kit.cache.connector import Connector
from cluster_kit.cache.loaders import check_callable
from cluster_kit.errors import ConfigurationError
from cluster_kit.errors.base import blaming
from cluster_kit.names import check_name
from cluster_kit.ports import Health, StoreCapabilities
from cluster_kit.settings.values import ServerUrl
from cluster_kit.supervisor import logged
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster_kit.cache.options import CacheOptions
    from cluster_kit.ports import AdapterContext, CacheStore
    from cluster_kit.registry import AdapterRegistry
    from cluster_kit.settings import Settings
    from cluster_kit.supervisor import Supervisor

MEMORY = "memory"
"""Name of the store that is in this process."""

_REDIS = "redis"
_MEMCACHED = "memcached"
_BUILT_IN = (MEMORY, _REDIS, _MEMCACHED)
_PRIVATE = {"memory://", "memory:///"}


class Stores:
    """The stores of an instance.

    Args:
        settings: say where they are.
        registry: finds what makes them.
    """

    def __init__(self, settings: Settings, registry: AdapterRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._factories: dict[str, Callable[[str], CacheStore]] = {}
        self._connectors: dict[str | ServerUrl, Connector] = {}  # by name, or server
        self._context: AdapterContext | None = None
        self._supervisor: Supervisor | None = None
        self._troubled_since: float | None = None

    def register(self, name: str, factory: Callable[[str], CacheStore]) -> None:
        """Add a kind of store. Raises as `CacheManager.register_store`."""
        checked = check_name("cache store", name)
        if checked in _BUILT_IN:
            raise ConfigurationError(f"there is a store {name!r}; choose another name")
        if checked in self._connectors:
            raise ConfigurationError(f"store {name!r} is in use")
        check_callable("factory", factory)
        self._factories[checked] = factory

    @property
    def extended(self) -> bool:
        """Whether `register` has added a kind."""
        return bool(self._factories)

    def check(self, made: CacheOptions, known: Iterable[CacheOptions]) -> None:
        """Refuse a cache that has no place.

        Args:
            made: what the cache is made with.
            known: what others were made with.

        Raises:
            ConfigurationError: there is no such store, or its URL is not set; or the cache would
                share its keys or its broadcasts with another one.
        """
        for other in known:
            if other.prefix == made.prefix:  # wherever they are: it is in what they tell, too
                text = f"prefix {made.prefix!r} belongs to cache {other.name!r}"
                raise ConfigurationError(text)
        if made.store not in self._factories:
            self._url(made.store)
        if made.l1_size == 0 and self.is_private(made.store):
            raise ConfigurationError("l1_size=0 needs a store: there is no other place")

    def is_private(self, name: str | None) -> bool:
        """Whether values are kept by the cache itself, in this process."""
        return name not in self._factories and self._url(name).reveal() in _PRIVATE

    def tells(self, options: CacheOptions, *, linked: bool) -> bool:
        """Whether a cache tells other instances what it invalidates.

        Raises:
            ConfigurationError: it is to, but not `linked` to them.
        """
        if options.backplane and not linked:
            raise ConfigurationError(
                f"cache {options.name!r}: a backplane needs publish and subscribe; set "
                "CLUSTER_KIT_PUBSUB__URL"
            )
        wanted = options.backplane
        return linked and (self._reaches(options.store) if wanted is None else wanted)

    def _reaches(self, name: str | None) -> bool:
        """Whether other instances should be told, and can be."""
        if self._settings.url_for("pubsub").scheme != MEMORY:
            return True
        shared = not self.is_private(name) and name not in self._factories
        return shared and self._url(name).scheme == MEMORY

    def connector(self, name: str | None) -> Connector | None:
        """Return the store of a name; None where the cache itself keeps the values.

        Raises:
            ConfigurationError: as `check`; or no adapter makes such stores.
        """
        if self.is_private(name):
            return None
        key = self._key(name)
        if key not in self._connectors:
            if self._supervisor is None or self._context is None:
                raise ConfigurationError("stores are made while the cluster runs")
            store, source = self._make(name), self._source(name)
            self._connectors[key] = Connector(store, self._supervisor, source)
        return self._connectors[key]

    async def connect(self, name: str | None) -> None:
        """Connect a store. Raises as `connector`, or `ConnectError`."""
        connector = self.connector(name)
        if connector is not None:
            await connector.connect()

    def open(self, context: AdapterContext, supervisor: Supervisor) -> None:
        """Make stores from now on."""
        self._context, self._supervisor = context, supervisor

    def resolve(self) -> None:
        """Make what the URL of a server is for, to be connected by its first use.

        Whatever can be seen without the server is so told at start.

        Raises:
            ConfigurationError: the URL is wrong, or its driver is not installed.
        """
        given = {_REDIS: self._settings.redis_url, _MEMCACHED: self._settings.memcached_url}
        for name, url in given.items():
            if url is not None and self._makes_stores(name, url):
                self.connector(name)

    def _makes_stores(self, name: str, url: ServerUrl) -> bool:
        """Whether the adapter of a server has stores; applications may do without them."""
        try:
            return self._registry.find(url.reveal()).cache is not None
        except ConfigurationError as exc:
            raise blaming(exc, self._source(name)) from exc.__cause__

    async def close(self) -> None:
        """Close every store."""
        connectors, self._connectors = self._connectors, {}
        self._context = self._supervisor = None
        for connector in connectors.values():
            async with logged("closing a cache's store"):
                await connector.close()

    def health(self, troubles: list[str], now: float) -> Health | None:
        """Return the state of all in use, with the worst status; None for nothing to say.

        A store that is down makes what runs on it slower, not wrong: it is `degraded`. One that
        is not used yet says so only where no other one is used and nothing is wrong.

        Args:
            troubles: of the caches, with and without a store.
            now: seconds since 1970.
        """
        self._troubled_since = (self._troubled_since or now) if troubles else None
        every = self._connectors.values()
        used = [connector for connector in every if connector.connected or connector.refused]
        states = [connector.health() for connector in used or (() if troubles else every)]
        if self._troubled_since is not None:
            trouble = "; ".join(troubles)
            states.append(Health(status="degraded", detail=trouble, since=self._troubled_since))
        if not states:
            return None
        worst = max(states, key=lambda state: state.status != "ok")
        return replace(worst, detail="; ".join(state.detail for state in states))

    def _make(self, name: str | None) -> CacheStore:
        if name in self._factories:
            made = self._factories[name](self._settings.url_for("cache").reveal())
            return check_store(name, made)
        assert self._context is not None  # noqa: S101 - checked by the caller
        try:
            return self._registry.create("cache", self._url(name).reveal(), self._context)
        except ConfigurationError as exc:
            raise blaming(exc, self._source(name)) from exc.__cause__

    def _source(self, name: str | None) -> str:
        """Return where the URL of a store comes from, as people know it."""
        if name in self._factories:
            return f"store {name!r}"
        own = {_REDIS: self._settings.redis_url, _MEMCACHED: self._settings.memcached_url}
        if name is not None and own.get(name) is not None:
            return f"{name}_url (CLUSTER_KIT_{name.upper()}_URL)"
        return self._settings.source_of("cache") or f"store {name or MEMORY!r}"

    def _key(self, name: str | None) -> str | ServerUrl:
        return name if name is not None and name in self._factories else self._url(name)

    def _url(self, name: str | None) -> ServerUrl:
        default = self._settings.url_for("cache")
        if name is None:
            return default
        if name == MEMORY:
            return default if default.scheme == MEMORY else ServerUrl("memory://")
        if name == _REDIS:
            own = self._settings.redis_url
            fits = default.scheme.startswith(("redis", "unix"))
        elif name == _MEMCACHED:
            own, fits = self._settings.memcached_url, default.scheme == _MEMCACHED
        else:
            known = [*_BUILT_IN, *self._factories]
            text = f"there is no store {name!r}{suggestion(name, known)}; there are: "
            raise ConfigurationError(text + ", ".join(known))
        if own is not None:
            return own
        if fits:
            return default
        raise ConfigurationError(f"store {name!r}: set CLUSTER_KIT_{name.upper()}_URL")


def check_store(name: str | None, made: object) -> CacheStore:
    """Return what a factory made, if it is a store.

    Raises:
        ConfigurationError: it is not.
    """
    values = ("read", "write", "swap", "renew", "remove", "increment", "keys")
    calls = ("connect", "close", "health", *values)
    lacking = [call for call in calls if not callable(getattr(made, call, None))]
    if not isinstance(getattr(made, "capabilities", None), StoreCapabilities):
        lacking.append("capabilities")
    if lacking:
        what = (
            f"the factory of store {name!r} returned {type(made).__name__}, which is no CacheStore"
        )
        raise ConfigurationError(f"{what}: it lacks {', '.join(lacking)}")
    return cast("CacheStore", made)
