"""The composition root: one object per instance of an application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from cluster_kit.capabilities import Capabilities, Ground
from cluster_kit.checks import takes
from cluster_kit.clock import MAX_WAIT, Duration, SystemClock, seconds
from cluster_kit.errors import AlreadyStartedError, ConfigurationError, LifecycleError
from cluster_kit.extensions import LEAST_SECONDS, Extensions, overall
from cluster_kit.lifecycle import Lifecycle, Steps
from cluster_kit.names import check_app, check_topic, new_id
from cluster_kit.plugin import (
    Plugin,
    check_plugins,
    hear_sync_messages,
    make_plugin,
    run_hook,
    start_order,
    warn_of_idle_topics,
)
from cluster_kit.registry import AdapterRegistry
from cluster_kit.settings import Settings, WorkerMode, check_settings
from cluster_kit.signals import ending_signals
from cluster_kit.supervisor import Supervisor, logged
from cluster_kit.telemetry import Telemetry

if TYPE_CHECKING:
    from cluster_kit.after_commit.service import FailureHook
    from cluster_kit.cache import Cache, CacheManager
    from cluster_kit.event_queue import EventQueue
    from cluster_kit.locks import LockManager
    from cluster_kit.ports import ClusterHealth, Extension, Outlets
    from cluster_kit.pubsub import PubSubManager
    from cluster_kit.sync_messages import SyncMessageManager

log = logging.getLogger(__name__)


class Cluster:
    """One instance of an application that runs as several.

    Args:
        name: of the application, the same in all its instances; prefixes every queue. 1 to 40
            bytes without a dot. Wins over ``CLUSTER_KIT_APP``.
        plugins: classes or instances, in the order in which they start.
        settings: by default read from the environment.

    Raises:
        ConfigurationError: there is no name, or a name or setting is wrong.

    Attributes:
        name: of the application.
        instance_id: of this object, unique among instances.
        settings: in force.
        event_queue: publishes and runs tasks.
        pubsub: sends messages to every instance.
        sync_messages: keeps what instances hold in memory equal.
        locks: let one at a time in, among all instances.
        caches: keep values, here and in stores.
        cache: the one that is always there.
        registry: the adapters by URL scheme; add your own before start.
        telemetry: reports what happens.
        outlets: where extensions make messages now and send them later.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        plugins: Iterable[Plugin | type[Plugin]] = (),
        settings: Settings | None = None,
    ) -> None:
        self.settings: Settings = Settings() if settings is None else check_settings(settings)
        self.name: str = _chosen_name(name, self.settings)
        self.instance_id: str = self.settings.instance_id or new_id()[:12]
        self.registry: AdapterRegistry = AdapterRegistry()
        self.telemetry: Telemetry = Telemetry()
        self._clock = SystemClock()
        self._worker_mode = WorkerMode.parse(self.settings.worker_mode)
        self._plugins: dict[str, Plugin] = {}
        self._loaded: list[Plugin] = []
        self._asked: set[str] = set()  # topics whose work is done by more than subscriptions
        self._background = Supervisor()  # of adapters and services; emptied at stop
        self._capabilities = Capabilities(self._ground())
        self._life = Lifecycle(self._steps())
        self._extensions = Extensions(self._life.hook)
        self.outlets: Outlets = self._capabilities.outlets
        self.event_queue: EventQueue = self._capabilities.event_queue
        self.pubsub: PubSubManager = self._capabilities.pubsub
        self.sync_messages: SyncMessageManager = self._capabilities.sync_messages
        self.locks: LockManager = self._capabilities.locks
        self.caches: CacheManager = self._capabilities.caches
        self.cache: Cache = self.caches.default
        for plugin in check_plugins(plugins):
            self.add_plugin(plugin)

    def __repr__(self) -> str:
        return f"Cluster({self.name!r}, instance_id={self.instance_id!r})"

    # --- plugins -------------------------------------------------------------------------

    @property
    def plugins(self) -> Mapping[str, Plugin]:
        """All plugins by name, in the order they were given."""
        return MappingProxyType(self._plugins)

    def add_plugin(self, plugin: Plugin | type[Plugin]) -> None:
        """Add a plugin. Legal before start.

        Raises:
            AlreadyStartedError: the cluster runs.
            ConfigurationError: its name is missing, malformed or taken.
        """
        if self._life.started:
            raise AlreadyStartedError("add_plugin()")
        instance = make_plugin(plugin)
        if instance.name in self._plugins:
            raise ConfigurationError(f"there are two plugins named {instance.name!r}")
        instance.bind(self)
        self._plugins[instance.name] = instance

    def extend(self, extension: Extension) -> None:
        """Start and stop `extension` with this cluster. Legal before start.

        Raises:
            AlreadyStartedError: the cluster runs.
            ConfigurationError: its name is taken.
        """
        if self._life.started:
            raise AlreadyStartedError(f"giving a cluster its {type(extension).__name__}")
        self._extensions.add(extension)

    def serving(self, topic: str | None = None) -> bool:
        """Whether this instance does the work of `topic`, or without one, the main service."""
        if topic is not None:
            self._asked.add(check_topic(topic))
        return self._worker_mode.serving(topic)

    def on_publish_failure(self, hook: FailureHook) -> Callable[[], None]:
        """Call `hook` with each `PublishFailure` from now on; return what undoes it.

        That is a message published with ``transaction=`` whose transaction was committed, and
        which could not be published then. Its data is in the database, and nobody was told: store
        it, or `PublishFailure.repeat` it. Hooks may be asynchronous; `stop` waits a second for
        them. After a stop they are called in the thread that commits, and only synchronous ones.

        Raises:
            ConfigurationError: `hook` cannot be called with one argument.
        """
        takes("on_publish_failure", hook, "failure")
        return self._capabilities.after_commit.on_failure(hook)

    # --- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, load the plugins and begin to take tasks. No effect when it runs already.

        When something fails, all that was started is stopped in reverse before the error leaves.

        Raises:
            ConnectError: no connection to the broker.
            PluginFailedError: a hook raised; the cause is chained.
            ConfigurationError: of settings, plugins or topology.
            LifecycleError: called from a plugin's hook, or from a task made in one that still
                runs; or `stop` was called meanwhile.
        """
        await self._life.start()

    async def stop(self, timeout: Duration | None = None) -> list[str]:
        """Stop in order: take nothing new, drain, stop the plugins, publish, disconnect.

        Published is what was committed, see ``transaction=`` of `EventQueue.publish`.

        A `start` under way or waiting is abandoned: its caller gets a `LifecycleError`. Legal
        before start and twice; a second call waits for the first. Once begun it completes even
        when the caller is cancelled.

        Args:
            timeout: seconds running tasks have to finish before they are cancelled and returned
                to their queues, which costs them no attempt; what is left of them, and at least
                one, is for what was committed. Defaults to the setting ``drain_timeout``.

        Returns:
            The ids of tasks that were cut short and of messages that were committed and not
            published, sorted; empty after a complete drain.

        Raises:
            LifecycleError: called from a plugin's hook, or from a task made in a `before_stop`
                that still runs.
        """
        setting = self.settings.drain_timeout
        limit = setting if timeout is None else seconds("timeout", timeout, limit=MAX_WAIT)
        return await self._life.stop(limit)

    async def run_until_signal(self) -> list[str]:
        """Start, wait for SIGTERM or SIGINT, stop. A second signal ends the process at once.

        Returns:
            As `stop`. Handlers of ``loop.add_signal_handler`` are not put back.
        """
        with ending_signals(self._life.abandon) as asked:
            try:
                await self.start()
                await asked.wait()
            except LifecycleError:
                if not asked.is_set():
                    raise
            finally:
                unfinished = await self.stop()
        return unfinished

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop with the default drain timeout."""
        await self.stop()

    def health(self) -> ClusterHealth:
        """Return the state as known now, for a health endpoint.

        ``status`` is the worst of the adapters' (``ok``, ``degraded``, ``down``), and ``down``
        while not running; ``ready`` says whether to send work here; ``adapters`` has status,
        detail and since (ISO 8601) of each.
        """
        states = self._capabilities.health() | self._extensions.health()
        return overall(states, ready=self._life.ready)

    # --- inside --------------------------------------------------------------------------

    def _ground(self) -> Ground:
        return Ground(
            app=self.name,
            instance_id=self.instance_id,
            settings=self.settings,
            registry=self.registry,
            telemetry=self.telemetry,
            background=self._background,
            consumes=self._consumes,
        )

    def _steps(self) -> Steps:
        return Steps(
            name=f"cluster {self.name}, instance {self.instance_id},",
            begin=self._start,
            begun=self._started,
            end=self._unwind,
            ended=self._stopped,
        )

    async def _start(self) -> None:
        order = start_order(self._plugins)
        for warning in self.settings.warnings():
            log.warning(warning)
        await self._capabilities.connect()
        await self._extensions.start(self._capabilities.context())
        if not self._worker_mode.transient:
            for plugin in order:
                await hear_sync_messages(plugin)
        for plugin in order:
            await self._run_hook(plugin, "before_load")
        for plugin in order:
            await self._run_hook(plugin, "load")
            self._loaded.append(plugin)
        declared = {topic for plugin in order for topic in plugin.topics}
        if self._worker_mode.topics:
            known, mode = declared | self.event_queue.topics(), self.settings.origin("worker_mode")
            self._worker_mode.require_known(known, mode)
        await self._capabilities.start()
        for plugin in order:
            await self._run_hook(plugin, "after_start")
        warn_of_idle_topics(order, self.event_queue.topics() | self._asked)

    async def _run_hook(self, plugin: Plugin, hook: str) -> None:
        with self._life.hook():
            await run_hook(plugin, hook)

    def _started(self) -> None:
        log.info("%s started as instance %s", self.name, self.instance_id)
        self.telemetry.emit("cluster.started", app=self.name, instance_id=self.instance_id)

    def _stopped(self, unfinished: list[str]) -> None:
        app, name = self.name, self.instance_id
        log.info("%s stopped, instance %s", app, name)
        self.telemetry.emit("cluster.stopped", app=app, instance_id=name, unfinished=unfinished)

    async def _unwind(self, timeout: float) -> list[str]:
        """Undo whatever `start` has done so far, in reverse; no failure keeps the rest back."""
        deadline = self._clock.monotonic() + timeout
        unfinished = await self._capabilities.drain(timeout)
        while self._loaded:
            plugin = self._loaded.pop()
            limit = max(LEAST_SECONDS, deadline - self._clock.monotonic())
            async with logged(f"before_stop of plugin {plugin.name!r}", limit=limit):
                with self._life.hook():
                    await plugin.before_stop()
        await self._extensions.stop(lambda: deadline - self._clock.monotonic())
        unfinished += await self._capabilities.flush(deadline - self._clock.monotonic())
        await self._capabilities.close()
        if left := await self._background.close():
            log.error("still running after stop: %s", ", ".join(left))
        return sorted(unfinished)

    def _consumes(self, topic: str | None) -> bool:
        """Whether this instance runs tasks of `topic`, or those that belong to none."""
        mode = self._worker_mode
        return not mode.transient if topic is None else mode.serving(topic)


def _chosen_name(name: str | None, settings: Settings) -> str:
    if (chosen := settings.app if name is None else name) is None:
        raise ConfigurationError("the app has no name: Cluster(name) or CLUSTER_KIT_APP")
    return check_app(chosen)
