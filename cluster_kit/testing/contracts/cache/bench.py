"""What scenarios work with: instances, their caches, and a hand on every call of the store."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from cluster_kit.cache.names import Names
from cluster_kit.cache.stores import check_store
from cluster_kit.testing.contracts.cache.environment import Environment
from cluster_kit.testing.contracts.cache.pausing import Pauses, PausingStore, in_time
from cluster_kit.testing.contracts.common import BaseBench
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.cache import Cache
    from cluster_kit.cache.options import CacheValues
    from cluster_kit.cluster import Cluster
    from cluster_kit.ports import AdapterContext, CacheStore
    from cluster_kit.settings.groups import CacheSettingsValues, PubSubValues
    from cluster_kit.settings.model import SettingsValues

T = TypeVar("T")

NAME = "contract"


class Bench(BaseBench[Environment]):
    """Instances of one application of its own, on the environment under test.

    Attributes:
        pauses: of each instance's calls of the store.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.pauses: dict[str, Pauses] = {}

    async def cluster(self, *, start: bool = True, **cache: Unpack[CacheSettingsValues]) -> Cluster:
        """Return one more instance; `cache` are settings of its caches."""
        url = await self.next_url()
        settings: SettingsValues = {"cache": {"url": url, "timeout": 10.0, **cache}}
        pubsub = self.environment.pubsub_url()
        if pubsub is not None:
            values: PubSubValues = {"url": pubsub}
            settings["pubsub"] = values
        return await self.add(settings, start=start)

    def prepare(self, cluster: Cluster) -> None:
        """As the environment says, and with a hand on each store there is then."""
        pauses = self.pauses[cluster.instance_id] = Pauses()
        _hold_registered(cluster, pauses)
        super().prepare(cluster)
        _hold_of_url(cluster, pauses)

    async def cache(self, cluster: Cluster | None = None, **options: Unpack[CacheValues]) -> Cache:
        """Return the cache of an instance, by default of one more."""
        cluster = cluster or await self.cluster()
        made: CacheValues = {**self.environment.options, **options}
        return await cluster.caches.create_cache(NAME, **made)

    async def caches(self, n: int, **options: Unpack[CacheValues]) -> list[Cache]:
        """Return the caches of so many more instances."""
        return [await self.cache(**options) for _ in range(n)]

    async def notices(self, cluster: Cluster) -> None:
        """Wait for nothing: the next call is what notices."""

    async def sees(self, cache: Cache, key: str, value: object) -> None:
        """Wait until a cache has a value, as it will once it was told."""

        async def look() -> bool:
            return await cache.get(key) == value

        await eventually(look)

    async def sees_not(self, cache: Cache, key: str, value: object) -> None:
        """Wait until a cache has not, or has no longer, a value."""

        async def look() -> bool:
            return await cache.get(key) != value

        await eventually(look)

    @property
    def names(self) -> Names:
        """Return where the store has what belongs to the cache."""
        return Names(self.app, NAME)

    def place(self, key: str, prefix: str = NAME) -> str:
        """Return where the store has the value of a key."""
        return Names(self.app, prefix).entry(key)


def _hold_of_url(cluster: Cluster, pauses: Pauses) -> None:
    """Pause the store of the instance's URL."""
    spec = cluster.registry.find(cluster.settings.url_for("cache").reveal())
    make = spec.cache
    if make is None:
        return

    def wrapped(url: str, context: AdapterContext) -> CacheStore:
        return PausingStore(make(url, context), pauses)

    cluster.registry.register(dataclasses.replace(spec, cache=wrapped))


def _hold_registered(cluster: Cluster, pauses: Pauses) -> None:
    """Pause stores that `register_store` adds from now on."""
    register = cluster.caches.register_store

    def register_paused(name: str, factory: Callable[[str], CacheStore]) -> None:
        def wrapped(url: str) -> CacheStore:
            return PausingStore(check_store(name, factory(url)), pauses)

        register(name, wrapped)

    vars(cluster.caches)["register_store"] = register_paused  # of this instance alone


async def together(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Do all at once and return what they return, in order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]


class Loads:
    """A loader that is counted, and can be held.

    Attributes:
        runs: how often it was called.
        begun: set by a run.
        go: a run waits for it.

    Args:
        value: gives what is loaded, when the run begins.
    """

    def __init__(self, value: Callable[[], object]) -> None:
        self.runs: int = 0
        self.begun: asyncio.Event = asyncio.Event()
        self.go: asyncio.Event = asyncio.Event()
        self.go.set()
        self._value = value

    async def has_begun(self) -> None:
        """Wait for a run."""
        await in_time(self.begun, "no load has begun")

    async def __call__(self) -> object:
        """Load: what is there at the beginning is returned at the end."""
        self.runs += 1
        value = self._value()
        self.begun.set()
        await self.go.wait()
        return value


class Row:
    """A row of a database, cached by everybody.

    Attributes:
        value: at this moment.
    """

    def __init__(self) -> None:
        self.value: int = 1

    def read(self) -> object:
        """Return it."""
        return {"row": self.value}

    def loads(self) -> Loads:
        """Return a loader of it."""
        return Loads(self.read)
