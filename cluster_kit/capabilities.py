"""The services of one instance and the adapters they stand on: made, opened and closed together."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.after_commit import AfterCommit
from cluster_kit.cache import CacheManager
from cluster_kit.errors import (
    AdapterNotFoundError,
    AdapterUnavailableError,
    ConfigurationError,
    ConnectError,
)
from cluster_kit.errors.base import blaming
from cluster_kit.event_queue import EventQueue
from cluster_kit.locks import LockManager
from cluster_kit.locks.on_demand import OnDemandLocks
from cluster_kit.ports import AdapterContext, BroadcastLimits, Outlets
from cluster_kit.pubsub import PubSubManager
from cluster_kit.pubsub.on_demand import OnDemandPubSub
from cluster_kit.supervisor import logged
from cluster_kit.sync_messages import SyncMessageManager

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from cluster_kit.ports import EventQueueAdapter, Health, LockAdapter, PubSubAdapter
    from cluster_kit.registry import AdapterRegistry
    from cluster_kit.settings import Settings
    from cluster_kit.settings.model import Capability
    from cluster_kit.supervisor import Supervisor
    from cluster_kit.telemetry import Telemetry

    _Adapter = EventQueueAdapter | PubSubAdapter | LockAdapter

log = logging.getLogger(__name__)


class Ground(NamedTuple):
    """What the services of an instance stand on.

    Attributes:
        app: name of the application.
        instance_id: of this instance.
        settings: in force.
        registry: finds the adapters.
        telemetry: reports what happens.
        background: starts what adapters and services run.
        consumes: whether this instance runs the tasks of a topic, or those of none.
    """

    app: str
    instance_id: str
    settings: Settings
    registry: AdapterRegistry
    telemetry: Telemetry
    background: Supervisor
    consumes: Callable[[str | None], bool]


class Capabilities:
    """What a `Cluster` is composed of.

    Attributes:
        event_queue: publishes and runs tasks.
        pubsub: sends messages to every instance.
        sync_messages: keeps what instances hold in memory equal.
        locks: let one at a time in, among all instances.
        caches: keep values, here and in stores.
        after_commit: publishes what was published in transactions.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._queue_adapter: EventQueueAdapter | None = None
        self._pubsub_adapter: PubSubAdapter | None = None
        self._lock_adapter: LockAdapter | None = None
        after_commit = AfterCommit(ground.registry, ground.telemetry)
        self.after_commit: AfterCommit = after_commit
        self.event_queue: EventQueue = _event_queue(ground, after_commit)
        self.pubsub: PubSubManager = _pubsub(ground)
        self.sync_messages: SyncMessageManager = _sync_messages(ground, after_commit)
        self.locks: LockManager = _locks(ground)
        self.caches: CacheManager = _caches(ground, after_commit)

    @property
    def outlets(self) -> Outlets:
        """Where messages are made now and sent later."""
        return Outlets(
            app=self._ground.app,
            tasks=self.event_queue.outlet,
            pubsub=self.pubsub.outlet,
            sync_messages=self.sync_messages.outlet,
        )

    # --- life ----------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect every adapter; publishing is possible then, nothing is handled yet.

        Raises:
            ConnectError: no connection to a broker.
            ConfigurationError: of settings or topology.
        """
        create, context = self._ground.registry.create, self.context()
        with self._naming_source("event_queue"):
            self._queue_adapter = create("event_queue", self._revealed("event_queue"), context)
            await self._queue_adapter.connect()
        self.event_queue.attach(self._queue_adapter, self._ground.background)
        await self._connect_pubsub()
        await self._connect_locks()
        await self.caches.connect(self._ground.background, context)
        await self.caches.open(self._pubsub_adapter, self._ground.background)
        self.after_commit.open(self._ground.background)

    async def _connect_pubsub(self) -> None:
        lacking = self._pubsub_lacks()
        self.pubsub.lacks(lacking)
        self.sync_messages.lacks(lacking)
        if lacking:
            return
        settings, create = self._ground.settings, self._ground.registry.create
        context = self.context()
        with self._naming_source("pubsub"):
            adapter: PubSubAdapter = create("pubsub", self._revealed("pubsub"), context)
        if settings.pubsub.url is None:  # nobody has asked for it so far
            adapter = OnDemandPubSub(adapter, context.clock, settings.source_of("pubsub"))
        self._pubsub_adapter = adapter
        with self._naming_source("pubsub"):
            await adapter.connect()
        await self.pubsub.open(adapter, self._ground.background)
        await self.sync_messages.open(adapter, self._ground.background)

    async def _connect_locks(self) -> None:
        settings, create = self._ground.settings, self._ground.registry.create
        implied, context = settings.locks.url is None, self.context()
        with self._naming_source("locks"):
            if implied and (lacking := self._lacks_locks()):
                self.locks.lacks(f"there are no locks: {lacking}; set CLUSTER_KIT_LOCKS__URL")
                return
            adapter: LockAdapter = create("locks", self._revealed("locks"), context)
        source, hints = settings.source_of("locks"), settings.warnings(("locks",))
        if implied:
            adapter = OnDemandLocks(adapter, context, source or "locks")
        self._lock_adapter = adapter
        with self._naming_source("locks"):
            await adapter.connect()
        self.locks.attach(adapter, self._ground.background, hints, source=source)

    def _revealed(self, capability: Capability) -> str:
        """Return a URL as it is, to be passed on: in a variable it would stay in tracebacks."""
        return self._ground.settings.url_for(capability).reveal()

    def _lacks_locks(self) -> str:
        try:
            spec = self._ground.registry.find(self._revealed("locks"))
        except AdapterNotFoundError as exc:
            return str(exc)
        return "" if spec.locks is not None else f"adapter {spec.name!r} has none"

    @contextmanager
    def _naming_source(self, capability: Capability) -> Generator[None]:
        """Have an error about a URL say where that comes from."""
        try:
            yield
        except (ConfigurationError, ConnectError) as exc:
            source = self._ground.settings.source_of(capability)
            if not source or str(exc).startswith(source):
                raise
            raise blaming(exc, source) from exc.__cause__

    def _pubsub_lacks(self) -> str:
        """Return why there is no publish and subscribe; empty when there is.

        An adapter that was chosen for it must have it; one that is only implied by the URL of the
        broker may lack it, for applications that do without.
        """
        if self._ground.settings.pubsub.url is not None:
            return ""
        try:
            spec = self._ground.registry.find(self._revealed("pubsub"))
        except (AdapterNotFoundError, AdapterUnavailableError) as exc:
            return str(exc)
        if spec.pubsub is not None:
            return ""
        return f"adapter {spec.name!r} has none; set CLUSTER_KIT_PUBSUB__URL to one that has"

    async def start(self) -> None:
        """Begin to call handlers. Raises as `EventQueueAdapter.consume`."""
        if self.pubsub.used or self.sync_messages.used:
            for warning in self._ground.settings.warnings(("pubsub",)):
                log.warning(warning)
        self.pubsub.start()
        self.sync_messages.start()
        await self.event_queue.start()

    async def drain(self, timeout: float) -> list[str]:
        """Take no more tasks, wait for those that run; return the ids of those cut short."""
        unfinished: list[str] = []
        if self.event_queue.attached:
            async with logged("taking nothing more"):
                await self.event_queue.quiet()
            async with logged("draining"):
                unfinished = await self.event_queue.drain(timeout)
        return unfinished

    async def flush(self, timeout: float) -> list[str]:
        """Publish what was committed; return the ids of what could not be in `timeout` seconds."""
        unsent: list[str] = []
        async with logged("publishing what was committed"):
            unsent += await self.after_commit.close(timeout)
        return unsent

    async def close(self) -> None:
        """Close services, then adapters; no failure keeps the rest back."""
        async with logged("closing the sync messages"):
            await self.sync_messages.close()
        async with logged("closing the subscriptions"):
            await self.pubsub.close()
        async with logged("giving back the locks"):
            await self.locks.close(self._ground.settings.event_queue.cancel_grace)
        async with logged("closing the caches"):
            await self.caches.close()
        async with logged("closing the consumers"):
            await self.event_queue.close()
        adapters = (self._lock_adapter, self._pubsub_adapter, self._queue_adapter)
        self._lock_adapter = self._pubsub_adapter = self._queue_adapter = None
        # At once: a broker that does not answer is waited for, and is often one and the same.
        closing = [adapter.close for adapter in adapters if adapter is not None]
        for error in await self._ground.background.run_all(closing, limit=len(adapters)):
            if error is not None:
                log.error("disconnecting failed", exc_info=error)

    # --- looking after it ----------------------------------------------------------------

    def health(self) -> dict[str, Health]:
        """Return the state of each adapter, its service's troubles included."""
        states: dict[str, Health] = {}
        for name, adapter, troubles in self._states():
            health = adapter.health()
            if health.status == "ok" and (found := list(troubles)):
                health = replace(health, status="degraded", detail="; ".join(found))
            states[name] = health
        if (caches := self.caches.health()) is not None:
            states["cache"] = caches
        return states

    def _states(self) -> Iterable[tuple[str, _Adapter, Iterable[str]]]:
        if self._queue_adapter is not None:
            yield "event_queue", self._queue_adapter, self.event_queue.troubles()
        if self._pubsub_adapter is not None:
            troubles = [*self.pubsub.troubles(), *self.sync_messages.troubles()]
            yield "pubsub", self._pubsub_adapter, troubles
        if self._lock_adapter is not None:
            yield "locks", self._lock_adapter, self.locks.troubles()

    def context(self) -> AdapterContext:
        """Return what adapters and extensions are given."""
        limits = self._ground.settings.pubsub
        return AdapterContext(
            app=self._ground.app,
            instance_id=self._ground.instance_id,
            tasks=self._ground.background,
            emit=self._ground.telemetry.emit,
            connect_timeout=self._ground.settings.connect_timeout,
            crash_limit=self._ground.settings.event_queue.crash_limit,
            broadcasts=BroadcastLimits(
                sticky_expires=limits.sticky_expires,
                sticky_max_messages=limits.sticky_max_messages,
                stream_max_age=limits.stream_max_age,
                stream_max_bytes=limits.stream_max_bytes,
                stream_segment_bytes=limits.stream_segment_bytes,
            ),
        )


def _event_queue(ground: Ground, after_commit: AfterCommit) -> EventQueue:
    return EventQueue(
        ground.app,
        ground.instance_id,
        ground.settings.event_queue,
        telemetry=ground.telemetry,
        consumes=ground.consumes,
        after_commit=after_commit,
    )


def _pubsub(ground: Ground) -> PubSubManager:
    return PubSubManager(ground.instance_id, ground.settings.pubsub, telemetry=ground.telemetry)


def _sync_messages(ground: Ground, after_commit: AfterCommit) -> SyncMessageManager:
    return SyncMessageManager(
        ground.instance_id,
        ground.settings.sync_messages,
        ground.settings.pubsub,
        telemetry=ground.telemetry,
        after_commit=after_commit,
    )


def _locks(ground: Ground) -> LockManager:
    return LockManager(
        ground.app, ground.instance_id, ground.settings.locks, telemetry=ground.telemetry
    )


def _caches(ground: Ground, after_commit: AfterCommit) -> CacheManager:
    return CacheManager(
        ground.app,
        ground.instance_id,
        ground.settings,
        registry=ground.registry,
        telemetry=ground.telemetry,
        after_commit=after_commit,
    )
