"""Plugins: parts of an application that start, stop and message as one."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from cluster_kit.checks import takes
from cluster_kit.errors import (
    ConfigurationError,
    LifecycleError,
    PluginFailedError,
    PluginRequirementError,
)
from cluster_kit.hook_names import check_methods
from cluster_kit.names import check_name, check_topic
from cluster_kit.supervisor import being_cancelled
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from cluster_kit.after_commit.service import FailureHook
    from cluster_kit.cache import Cache, CacheManager
    from cluster_kit.event_queue import EventQueue
    from cluster_kit.locks import LockManager
    from cluster_kit.ports import ClusterHealth, Outlets
    from cluster_kit.pubsub import PubSubManager
    from cluster_kit.registry import AdapterRegistry
    from cluster_kit.settings import Settings
    from cluster_kit.sync_messages import SyncMessageManager
    from cluster_kit.telemetry import Telemetry

log = logging.getLogger(__name__)

_AWAITED = ("before_load", "load", "after_start", "before_stop")
"""Methods of a plugin that are called for it, and are async."""

_HOOKS = (*_AWAITED, "handle_sync_message", "on_sync_gap")
"""Methods of a plugin that are called for it."""


class Host(Protocol):
    """The cluster, as its plugins see it."""

    name: str
    instance_id: str
    settings: Settings
    event_queue: EventQueue
    pubsub: PubSubManager
    sync_messages: SyncMessageManager
    locks: LockManager
    caches: CacheManager
    cache: Cache
    registry: AdapterRegistry
    telemetry: Telemetry
    outlets: Outlets

    @property
    def plugins(self) -> Mapping[str, Plugin]:
        """All plugins by name."""
        ...

    def serving(self, topic: str | None = None) -> bool:
        """Whether this instance does the work of `topic`, or without one, the main service."""
        ...

    def health(self) -> ClusterHealth:
        """Return the state as known now, see `Cluster.health`."""
        ...

    def on_publish_failure(self, hook: FailureHook) -> Callable[[], None]:
        """Call `hook` with each failure from now on, see `Cluster.on_publish_failure`."""
        ...


class Plugin:
    """Base of an application's plugins. Override the hooks you need.

    Hooks run in this order, each through all plugins before the next: `before_load`, `load`,
    `after_start`; and at the end `before_stop`, in reverse. Plugins named in `requires` go first.
    `handle_sync_message` hears what this plugin sends on other instances, from before `load` on;
    it is called once all plugins are loaded.

    Attributes:
        name: unique among the plugins of a cluster; prefixes your channels by convention.
        requires: names of plugins that must be there and are started earlier.
        topics: worker-mode topics this plugin's subscriptions serve.
    """

    name: str = ""
    requires: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()

    _host: Host | None = None

    @property
    def cluster(self) -> Host:
        """The cluster this plugin belongs to.

        Raises:
            LifecycleError: it belongs to none yet.
        """
        if self._host is None:
            raise LifecycleError(f"plugin {self.name!r} does not belong to a cluster yet")
        return self._host

    def bind(self, host: Host) -> None:
        """Make this plugin part of a cluster. Called by `Cluster`.

        Raises:
            ConfigurationError: it is part of another one.
        """
        if self._host is not None and self._host is not host:
            raise ConfigurationError(f"plugin {self.name!r} belongs to another cluster already")
        self._host = host

    async def before_load(self) -> None:
        """Prepare. The adapters are connected; no plugin is loaded yet."""

    async def load(self) -> None:
        """Subscribe, open, read. Plugins named in `requires` are loaded."""

    async def after_start(self) -> None:
        """Begin work of your own. Every plugin is loaded and tasks are being taken."""

    async def before_stop(self) -> None:
        """Put things in order. Tasks have ended; publishing still works, both kinds.

        Cancelled when the cluster's time to stop is over, but not within its first second.
        """

    async def handle_sync_message(self, message: Any) -> None:  # noqa: ANN401 - yours to narrow
        """Take over what this plugin sent on another instance. Heard only where overridden."""

    async def on_sync_gap(self) -> None:
        """Load anew what sync messages keep equal: some may have been missed."""
        log.warning(
            "plugin %r may have missed sync messages and does not override on_sync_gap()",
            self.name,
        )

    async def send_sync_message(self, message: object, *, transaction: object = None) -> str:
        """Tell this plugin on all other instances; return the id of the message.

        Args:
            message: anything JSON has, null included, or a pydantic model.
            transaction: send it after the commit of this one, see `SyncMessageManager.publish`.

        Raises:
            LifecycleError: the plugin belongs to no cluster, or that does not run.
            EncodeError: the message cannot travel.
            UnknownTransactionError: nobody can tell when `transaction` is committed.
            TransportError: as `PubSubManager.publish`.
        """
        return await self.cluster.sync_messages.publish(self.name, message, transaction=transaction)


def make_plugin(plugin: object) -> Plugin:
    """Return an instance for what a user listed: an instance or a class without arguments.

    Raises:
        ConfigurationError: it is neither, its name or one of its topics is not legal, or a hook is
            no ``async def``.
    """
    instance = cast("type[object]", plugin)() if isinstance(plugin, type) else plugin
    if not isinstance(instance, Plugin):
        text = f"plugins are Plugin classes or instances, not {type(instance).__name__}"
        raise ConfigurationError(text)
    if not instance.name:
        raise ConfigurationError(f"plugin {type(instance).__qualname__} has no name")
    check_name("plugin name", instance.name)
    for attribute in ("requires", "topics"):
        if isinstance(getattr(instance, attribute), str):
            text = f"plugin {instance.name!r}: {attribute} is a tuple of names, not a string"
            raise ConfigurationError(text)
    for topic in instance.topics:
        check_topic(topic)
    check_methods(instance.name, type(instance), Plugin, _HOOKS)
    for hook in _AWAITED:
        _check_async(instance, hook)
    return instance


def _check_async(plugin: Plugin, hook: str) -> None:
    """Refuse a plain ``def`` before it is called: it would have done its work already.

    Not refused is what was decorated, or is annotated to return something, as an awaitable.
    """
    method = getattr(type(plugin), hook)
    if not inspect.isfunction(method) or inspect.iscoroutinefunction(method):
        return
    decorated = method.__name__ != hook or hasattr(method, "__wrapped__")
    if not decorated and method.__annotations__.get("return") in {None, "None"}:
        raise ConfigurationError(f"plugin {plugin.name!r}: {hook} must be async def")


def check_plugins(plugins: object) -> Iterable[Plugin | type[Plugin]]:
    """Return what a user listed, or raise `ConfigurationError`: one alone is no list."""
    if isinstance(plugins, Iterable) and not isinstance(plugins, str | bytes | type | Plugin):
        return cast("Iterable[Plugin | type[Plugin]]", plugins)
    kind = plugins if isinstance(plugins, type) else type(plugins)
    shown = f"the class {kind.__name__}" if isinstance(plugins, type) else kind.__name__
    hint = f": plugins=[{kind.__name__}]" if issubclass(kind, Plugin) else ""
    text = f"plugins is a list of Plugin classes or instances, not {shown}{hint}"
    raise ConfigurationError(text)


def warn_of_idle_topics(plugins: Iterable[Plugin], known: Collection[str]) -> None:
    """Log which topics plugins name that nothing serves.

    Args:
        plugins: those of a cluster.
        known: topics that subscriptions serve, or that were asked for.
    """
    for plugin in plugins:
        for topic in plugin.topics:
            if topic not in known:
                text = "plugin %r names topic %r, which no subscription serves%s"
                log.warning(text, plugin.name, topic, suggestion(topic, known))


def start_order(plugins: Mapping[str, Plugin]) -> list[Plugin]:
    """Return the plugins so that each comes after those it requires, else in the given order.

    Raises:
        PluginRequirementError: a required plugin is missing, or plugins require each other; the
            text has the path.
    """
    ordered: dict[str, Plugin] = {}

    def visit(name: str, path: Iterable[str]) -> None:
        path = [*path, name]
        if name in path[:-1]:
            circle = " -> ".join(path[path.index(name) :])
            raise PluginRequirementError(f"plugins require each other: {circle}")
        if name in ordered:
            return
        plugin = plugins[name]
        for required in plugin.requires:
            if required not in plugins:
                text = f"plugin {name!r} requires {required!r}, which is not there"
                raise PluginRequirementError(text + suggestion(required, plugins))
            visit(required, path)
        ordered[name] = plugin

    for name in plugins:
        visit(name, [])
    return list(ordered.values())


async def hear_sync_messages(plugin: Plugin) -> None:
    """Subscribe a plugin that overrides `handle_sync_message`; another is left alone.

    Raises:
        ConfigurationError: this deployment has no publish and subscribe, the method does not take
            a message, or `on_sync_gap` takes something.
    """
    if getattr(plugin.handle_sync_message, "__func__", None) is Plugin.handle_sync_message:
        return
    takes(f"plugin {plugin.name!r}: on_sync_gap", plugin.on_sync_gap)
    await plugin.cluster.sync_messages.subscribe(
        plugin.name, plugin.handle_sync_message, on_gap=_gap_hook(plugin)
    )


def _gap_hook(plugin: Plugin) -> Callable[[list[str]], object]:
    """Return what calls `on_sync_gap`, which may block where it is a plain function."""
    hook: Callable[[], object] = plugin.on_sync_gap

    async def on_gap(_channels: list[str]) -> None:
        await run_hook(plugin, "on_sync_gap")

    def on_gap_blocking(_channels: list[str]) -> object:
        try:
            return hook()
        except Exception as exc:
            raise PluginFailedError(plugin.name, "on_sync_gap", exc) from exc

    return on_gap if inspect.iscoroutinefunction(hook) else on_gap_blocking


async def run_hook(plugin: Plugin, hook: str) -> None:
    """Run one hook of a plugin.

    Raises:
        PluginFailedError: it raised, which is chained; also when it ran into a cancellation that
            was not meant for it.
    """
    try:
        await _awaitable(getattr(plugin, hook)(), hook)
    except Exception as exc:
        raise PluginFailedError(plugin.name, hook, exc) from exc
    except asyncio.CancelledError as exc:
        if being_cancelled():
            raise
        raise PluginFailedError(plugin.name, hook, exc) from exc
    except SystemExit as exc:
        text = "plugin %r ends the process in %s: %r"
        log.error(text, plugin.name, hook, exc)  # noqa: TRY400 - it is meant
        raise


def _awaitable(running: object, hook: str) -> Awaitable[object]:
    if inspect.isawaitable(running):
        return running
    text = f"{hook} must be async def"
    raise TypeError(text)
