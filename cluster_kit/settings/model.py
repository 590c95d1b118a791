"""The settings themselves, with units and defaults."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict, Unpack

from cluster_kit.clock import Duration
from cluster_kit.errors import ConfigurationError
from cluster_kit.settings.group import Group, group
from cluster_kit.settings.groups import (
    CacheSettings,
    CacheSettingsValues,
    EventQueueSettings,
    EventQueueValues,
    LockSettings,
    LockValues,
    PubSubSettings,
    PubSubValues,
    SyncMessagesSettings,
    SyncMessagesValues,
)
from cluster_kit.settings.places import DOTENV, Path, argument, is_setting, path_of, variable
from cluster_kit.settings.values import (
    AmqpUrl,
    AppName,
    Grace,
    InstanceId,
    MemcachedUrl,
    RedisUrl,
    ServerUrl,
    Timeout,
    WorkerModeText,
    checked,
)

Capability = Literal["event_queue", "pubsub", "cache", "locks"]
"""What has a server of its own in the settings."""

MEMORY = "memory"
"""Scheme of what reaches no other process."""


class SettingsValues(TypedDict, total=False):
    """Arguments of `Settings`."""

    app: str | None
    amqp_url: str | ServerUrl | None
    redis_url: str | ServerUrl | None
    memcached_url: str | ServerUrl | None
    event_queue: EventQueueSettings | EventQueueValues
    pubsub: PubSubSettings | PubSubValues
    sync_messages: SyncMessagesSettings | SyncMessagesValues
    cache: CacheSettings | CacheSettingsValues
    locks: LockSettings | LockValues
    worker_mode: str
    drain_timeout: Duration
    connect_timeout: Duration
    instance_id: str | None


@group
class Settings(Group):
    """Settings of a cluster. Frozen; passwords are never shown.

    An argument wins over its variable, which wins over the ``.env`` file of the working
    directory. Variables have the arguments' names in upper case after ``CLUSTER_KIT_``, groups
    joined by two underscores: ``CLUSTER_KIT_EVENT_QUEUE__RETRY__MAX_DELAY=60``.

    Attributes:
        app: name of the application, 1 to 40 bytes without a dot; `Cluster` has its own argument
            for it.
        amqp_url: of RabbitMQ, one or several hosts: ``amqp://user:password@mq-1,mq-2/vhost``.
        redis_url: of Redis.
        memcached_url: of memcached.
        event_queue: settings of the event queue.
        pubsub: settings of publish and subscribe.
        sync_messages: settings of sync messages.
        cache: settings of the cache.
        locks: settings of the locks.
        worker_mode: which part of the work this instance does, see `WorkerMode`.
            Defaults to everything.
        drain_timeout: seconds handlers have to finish at stop. Defaults to 30; 0 cancels at once.
        connect_timeout: seconds for the first connection. Defaults to 10.
        instance_id: of this instance, unique in the application; None makes a random one.

    Raises:
        SettingsError: one line for each unknown or wrong variable and argument.
    """

    app: AppName = None
    amqp_url: AmqpUrl = None
    redis_url: RedisUrl = None
    memcached_url: MemcachedUrl = None
    event_queue: EventQueueSettings = EventQueueSettings()
    pubsub: PubSubSettings = PubSubSettings()
    sync_messages: SyncMessagesSettings = SyncMessagesSettings()
    cache: CacheSettings = CacheSettings()
    locks: LockSettings = LockSettings()
    worker_mode: WorkerModeText = ""
    drain_timeout: Grace = 30.0
    connect_timeout: Timeout = 10.0
    instance_id: InstanceId = None

    def __init__(self, **values: Unpack[SettingsValues]) -> None:
        known = _at_once(values)
        self._fill(_read(type(self), values) if known is None else known)

    def url_for(self, capability: Capability) -> ServerUrl:
        """Return the server of a capability.

        That is its own URL; else `amqp_url` for the event queue and pub/sub, `redis_url` for
        cache and locks, and for locks without that `amqp_url`; else ``memory://``, which reaches
        no other process.

        >>> Settings(amqp_url="amqp://mq/").url_for("event_queue")
        ServerUrl('amqp://mq/')
        """
        implied = self.amqp_url if capability in {"event_queue", "pubsub"} else self.redis_url
        if capability == "locks":
            implied = implied or self.amqp_url
        return self._own_url(capability) or implied or ServerUrl(f"{MEMORY}://")

    def source_of(self, capability: Capability) -> str:
        """Return what `url_for` has its answer from, as people know it; empty for none at all.

        >>> Settings(amqp_url="amqp://mq/").source_of("event_queue")
        'amqp_url (CLUSTER_KIT_AMQP_URL)'
        """
        chosen, own = self.url_for(capability), (capability, "url")
        given = dict(self._urls())
        order: list[Path] = [own, ("redis_url",), ("amqp_url",)]
        for path in order:
            if given.get(path) is chosen:
                return f"{argument(path)} ({variable(path)})"
        return ""

    def warnings(self, capabilities: Iterable[Capability] = ("event_queue",)) -> list[str]:
        """Return what looks like a mistake, to be logged at start.

        A capability that is in memory because nobody gave it a URL, beside a configured server,
        splits the instances into islands that do not see each other's work.

        Args:
            capabilities: those in use.
        """
        forgotten = [c for c in capabilities if not self._own_url(c) and self._in_memory(c)]
        shared = [(path, url) for path, url in self._urls() if url.scheme != MEMORY]
        if not (forgotten and shared):
            return []
        names = " and ".join(self.origin(*path) for path, _ in shared)
        return [
            f"{capability} is on memory:// although {names} {'is' if len(shared) == 1 else 'are'} "
            "set: every instance works on its own island; set "
            f"{variable((capability, 'url'))}, to memory:// if that is meant"
            for capability in forgotten
        ]

    def origin(self, *path: str) -> str:
        """Return by what a setting got its value: its variable, where that says the same, or code.

        >>> Settings(worker_mode="*").origin("worker_mode")
        'the argument worker_mode'
        """
        from cluster_kit.settings.reading import given  # noqa: PLC0415 - loads pydantic

        value: object = self
        for name in path:
            value = getattr(value, name)
        if isinstance(value, ServerUrl):
            value = value.reveal()
        variables = given(type(self))
        if variables.values.get(path) == value:
            return f"{variable(path)}{variables.origins[path]}"
        return f"the argument {argument(path)}"

    def _own_url(self, capability: Capability) -> ServerUrl | None:
        own: CacheSettings | EventQueueSettings | PubSubSettings | LockSettings = getattr(
            self, capability
        )
        return own.url

    def _in_memory(self, capability: Capability) -> bool:
        return self.url_for(capability).scheme == MEMORY

    def _urls(self) -> list[tuple[Path, ServerUrl]]:
        """Return every URL that is set, with the path of its setting."""
        found: dict[Path, ServerUrl | None] = {
            ("amqp_url",): self.amqp_url,
            ("redis_url",): self.redis_url,
            ("memcached_url",): self.memcached_url,
            ("event_queue", "url"): self.event_queue.url,
            ("pubsub", "url"): self.pubsub.url,
            ("cache", "url"): self.cache.url,
            ("locks", "url"): self.locks.url,
        }
        return [(path, url) for path, url in found.items() if url is not None]


class ArgumentSettings(Settings):
    """Settings that neither variables nor a ``.env`` file have a say in."""

    def __init__(self, **values: Unpack[SettingsValues]) -> None:
        Group.__init__(self, **values)


_ADDRESSES: Mapping[str, object] = {
    "app": AppName,
    "amqp_url": AmqpUrl,
    "redis_url": RedisUrl,
    "memcached_url": MemcachedUrl,
    "instance_id": InstanceId,
}


def _at_once(arguments: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return what is given where that is an application and its servers: most give no more.

    Else, or where anything is wrong, return None: to load pydantic takes longer than all the rest
    of a start.
    """
    variables = {path_of(name): text for name, text in os.environ.items() if is_setting(name)}
    given: dict[str, object] = {".".join(path): text for path, text in variables.items()}
    given.update(arguments)
    if pathlib.Path(DOTENV).exists() or not given.keys() <= _ADDRESSES.keys():
        return None
    try:
        return {name: checked(_ADDRESSES[name], value) for name, value in given.items()}
    except ConfigurationError:
        return None


def _read(kind: type[Settings], arguments: Mapping[str, object]) -> Mapping[str, object]:
    from cluster_kit.settings.reading import read  # noqa: PLC0415 - loads pydantic

    return read(kind, arguments)


def check_settings(settings: object) -> Settings:
    """Return settings, or raise `ConfigurationError`."""
    if isinstance(settings, Settings):
        return settings
    # The values are not shown: passwords may be among them.
    text = f"settings is a Settings, as in Settings(amqp_url=...), not {type(settings).__name__}"
    raise ConfigurationError(text)
