"""What lives and ends with a cluster without being an adapter of one of its services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit.broadcast import Broadcast
    from cluster_kit.clock import Duration
    from cluster_kit.message import Envelope, Headers
    from cluster_kit.ports.context import AdapterContext, Health


class BatchOptions(TypedDict, total=False):
    """The options of `EventQueue.publish_many`."""

    timeout: Duration | None
    max_retries: int | None
    delay: Duration | None
    ttl: Duration | None
    headers: Headers | None
    shared: bool


class TaskOptions(BatchOptions, total=False):
    """The options of `EventQueue.publish`."""

    message_id: str | None


class TaskOutlet(Protocol):
    """Publishing a task in two steps: made now, sent later, perhaps by another instance."""

    def prepare(
        self, channel: str, payload: object, **options: Unpack[TaskOptions]
    ) -> tuple[Envelope, float]:
        """Return a task and the seconds it is to be delayed. Legal before start.

        Raises:
            ConfigurationError: a name or an option is wrong.
            EncodeError: payload or headers cannot travel.
            MessageTooLargeError: over a limit.
            TypeError: there is no such option.
        """
        ...

    def prepare_many(
        self, channel: str, payloads: Iterable[object], **options: Unpack[BatchOptions]
    ) -> tuple[list[Envelope], float]:
        """Return many tasks, each as `prepare`; an error says which one it is about."""
        ...

    async def send(self, envelope: Envelope, delay: float) -> str:
        """Store a task and return its id. Raises as `EventQueue.publish`."""
        ...


class BroadcastOutlet(Protocol):
    """Publishing a broadcast in two steps: made now, sent later, perhaps by another instance."""

    def prepare(
        self,
        channel: str,
        message: object,
        *,
        skip_self: bool | None = None,
        only_self: bool = False,
    ) -> Broadcast:
        """Return a message of this instance, without a number. Legal before start.

        Raises:
            ConfigurationError: a name or an option is wrong.
            EncodeError: the message cannot travel.
            MessageTooLargeError: over a limit.
        """
        ...

    async def send(self, broadcast: Broadcast) -> str:
        """Send a message and return its id. Raises as `PubSubManager.publish`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where an instance makes messages now and sends them later.

    Attributes:
        app: name of the application, which prefixes its queues.
        tasks: of the event queue.
        pubsub: of publish and subscribe.
        sync_messages: of what keeps plugins equal.
    """

    app: str
    tasks: TaskOutlet
    pubsub: BroadcastOutlet
    sync_messages: BroadcastOutlet


class Extension(Protocol):
    """Something that is started with a cluster and stopped with it.

    It starts when the adapters are connected and before any plugin does, and stops after the last
    plugin has; so publishing works all its life.
    """

    @property
    def name(self) -> str:
        """What `Cluster.health` calls it; unique in a cluster."""
        ...

    async def start(self, context: AdapterContext) -> None:
        """Begin. What it raises ends the start of the cluster; it is stopped then, too."""
        ...

    async def stop(self, timeout: float) -> None:
        """End what `start` began, within about `timeout` seconds. Legal before `start`, and twice.

        That is what is left of the time the cluster has to stop, at least a second.
        """
        ...

    def health(self) -> Health:
        """Return the state as known now."""
        ...


class Extensible(Protocol):
    """A cluster, as its extensions see it."""

    @property
    def outlets(self) -> Outlets:
        """Where messages are made now and sent later."""
        ...

    def extend(self, extension: Extension) -> None:
        """Start and stop `extension` with this cluster. Legal before start."""
        ...
