"""The services of one instance and the adapters they stand on: made, opened and closed together."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit.after_commit import AfterCommit
from cluster_kit.cache import CacheManager
from cluster_kit.errors import AdapterNotFoundError, AdapterUnavailableError, ConfigurationError
from cluster_kit.event_queue import EventQueue
from cluster_kit.locks import LockManager
from cluster_kit.locks.on_demand import OnDemand as LocksOnDemand
from cluster_kit.ports import AdapterContext, BroadcastLimits, Outlets
from cluster_kit.pubsub import PubSubManager
from cluster_kit.pubsub.on_demand import OnDemand
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

log = logging.getLogger(__name__)


class Capabilities:
    """What a `Cluster` is composed of.

    Args:
        app: name of the application.
        instance_id: of this instance.
        settings: in force.
        registry: finds the adapters.
        telemetry: reports what happens.
        background: starts what adapters and services run.
        consumes: whether this instance runs the tasks of a topic, or those of none.

    Attributes:
        event_queue: publishes and runs tasks.
        pubsub: sends messages to every instance.
        sync_messages: keeps what instances hold in memory equal.
        locks: let one at a time in, among all instances.
        caches: keep values, here and in stores.
        after_commit: publishes what was published in transactions.
    """

    def __init__(  # noqa: PLR0913 - a composition names its parts
        self,
        app: str,
        instance_id: str,
        settings: Settings,
        *,
        registry: AdapterRegistry,
        telemetry: Telemetry,
        background: Supervisor,
        consumes: Callable[[str | None], bool],
    ) -> None:
        self._app = app
        self._instance_id = instance_id
        self._settings = settings
        self._registry = registry
        self._telemetry = telemetry
        self._background = background
        self._queue_adapter: EventQueueAdapter | None = None
        self._pubsub_adapter: PubSubAdapter | None = None
        self._lock_adapter: LockAdapter | None = None
        self.after_commit: AfterCommit = AfterCommit(registry, telemetry)
        self.event_queue: EventQueue = EventQueue(
            app,
            instance_id,
            settings.event_queue,
            telemetry=telemetry,
            consumes=consumes,
            after_commit=self.after_commit,
        )
        self.pubsub: PubSubManager = PubSubManager(
            instance_id, settings.pubsub, telemetry=telemetry
        )
        self.sync_messages: SyncMessageManager = SyncMessageManager(
            instance_id,
            settings.sync_messages,
            settings.pubsub,
            telemetry=telemetry,
            after_commit=self.after_commit,
        )
        self.locks: LockManager = LockManager(app, instance_id, settings.locks, telemetry=telemetry)
        self.caches: CacheManager = CacheManager(
            app,
            instance_id,
            settings,
            registry=registry,
            telemetry=telemetry,
            after_commit=self.after_commit,
        )

    @property
    def outlets(self) -> Outlets:
        """Where messages are made now and sent later."""
        return Outlets(
            app=self._app,
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
        url = self._settings.url_for("event_queue").reveal()
        with self._naming_source("event_queue"):
            self._queue_adapter = self._registry.create("event_queue", url, self.context())
        await self._queue_adapter.connect()
        self.event_queue.attach(self._queue_adapter, self._background)
        await self._connect_pubsub()
        await self._connect_locks()
        await self.caches.open(self._pubsub_adapter, self._background, self.context())
        self.after_commit.open(self._background)

    async def _connect_pubsub(self) -> None:
        lacking = self._pubsub_lacks()
        self.pubsub.lacks(lacking)
        self.sync_messages.lacks(lacking)
        if lacking:
            return
        url = self._settings.url_for("pubsub").reveal()
        context = self.context()
        adapter: PubSubAdapter
        with self._naming_source("pubsub"):
            adapter = self._registry.create("pubsub", url, context)
        if self._settings.pubsub.url is None:  # nobody has asked for it so far
            adapter = OnDemand(adapter, context.clock)
        self._pubsub_adapter = adapter
        await adapter.connect()
        await self.pubsub.open(adapter, self._background)
        await self.sync_messages.open(adapter, self._background)

    async def _connect_locks(self) -> None:
        chosen = self._settings.url_for("locks")
        context = self.context()
        adapter: LockAdapter
        try:
            with self._naming_source("locks"):
                adapter = self._registry.create("locks", chosen.reveal(), context)
        except ConfigurationError as exc:
            # One that is only implied by the URL of a server may lack what applications that do
            # without locks need not have.
            if self._settings.locks.url is not None:
                raise
            self.locks.lacks(f"there are no locks: {exc}; set CLUSTER_KIT_LOCKS__URL")
            return
        if self._settings.locks.url is None:  # nobody has asked for it so far
            adapter = LocksOnDemand(adapter, context)
        self._lock_adapter = adapter
        await adapter.connect()
        self.locks.attach(adapter, self._background, self._settings.warnings(("locks",)))

    @contextmanager
    def _naming_source(self, capability: Capability) -> Generator[None]:
        """Have an error about a URL say where that comes from."""
        try:
            yield
        except ConfigurationError as exc:
            if not (source := self._settings.source_of(capability)):
                raise
            named = copy(exc)  # the registry may keep it, to raise it again
            named.args = (f"{source}: {exc}",)
            raise named from exc.__cause__

    def _pubsub_lacks(self) -> str:
        """Return why there is no publish and subscribe; empty when there is.

        An adapter that was chosen for it must have it; one that is only implied by the URL of the
        broker may lack it, for applications that do without.
        """
        if self._settings.pubsub.url is not None:
            return ""
        try:
            spec = self._registry.find(self._settings.url_for("pubsub").reveal())
        except (AdapterNotFoundError, AdapterUnavailableError) as exc:
            return str(exc)
        if spec.pubsub is not None:
            return ""
        return f"adapter {spec.name!r} has none; set CLUSTER_KIT_PUBSUB__URL to one that has"

    async def start(self) -> None:
        """Begin to call handlers. Raises as `EventQueueAdapter.consume`."""
        if self.pubsub.used or self.sync_messages.used:
            for warning in self._settings.warnings(("pubsub",)):
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
            await self.locks.close()
        async with logged("closing the caches"):
            await self.caches.close()
        async with logged("closing the consumers"):
            await self.event_queue.close()
        adapters = (self._lock_adapter, self._pubsub_adapter, self._queue_adapter)
        self._lock_adapter = self._pubsub_adapter = self._queue_adapter = None
        # At once: a broker that does not answer is waited for, and is often one and the same.
        closing = [adapter.close for adapter in adapters if adapter is not None]
        for error in await self._background.run_all(closing, limit=len(adapters)):
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

    def _states(
        self,
    ) -> Iterable[tuple[str, EventQueueAdapter | PubSubAdapter | LockAdapter, Iterable[str]]]:
        if self._queue_adapter is not None:
            yield "event_queue", self._queue_adapter, self.event_queue.troubles()
        if self._pubsub_adapter is not None:
            troubles = [*self.pubsub.troubles(), *self.sync_messages.troubles()]
            yield "pubsub", self._pubsub_adapter, troubles
        if self._lock_adapter is not None:
            yield "locks", self._lock_adapter, self.locks.troubles()

    def context(self) -> AdapterContext:
        """Return what adapters and extensions are given."""
        limits = self._settings.pubsub
        return AdapterContext(
            app=self._app,
            instance_id=self._instance_id,
            tasks=self._background,
            emit=self._telemetry.emit,
            connect_timeout=self._settings.connect_timeout,
            crash_limit=self._settings.event_queue.crash_limit,
            broadcasts=BroadcastLimits(
                sticky_expires=limits.sticky_expires,
                sticky_max_messages=limits.sticky_max_messages,
                stream_max_age=limits.stream_max_age,
                stream_max_bytes=limits.stream_max_bytes,
                stream_segment_bytes=limits.stream_segment_bytes,
            ),
        )
