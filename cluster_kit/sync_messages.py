"""Messages that keep what instances hold in memory equal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit.after_commit import Parcel
from cluster_kit.clock import SystemClock
from cluster_kit.names import check_name
from cluster_kit.pubsub import PubSubManager
from cluster_kit.pubsub.transports import Transports

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.after_commit import AfterCommit
    from cluster_kit.clock import Clock, Duration
    from cluster_kit.ports import BroadcastOutlet, PubSubAdapter
    from cluster_kit.pubsub import BroadcastStats, Subscription
    from cluster_kit.settings import PubSubSettings, SyncMessagesSettings
    from cluster_kit.signature import Process
    from cluster_kit.supervisor import Supervisor
    from cluster_kit.telemetry import Telemetry

REALM = "sync"
"""What keeps these channels apart from those of `PubSubManager`."""


class SyncMessageManager:
    """Tells the other instances what changed. Got from `Cluster.sync_messages`.

    Publish and subscribe with channels of its own, on a transport that survives a reconnect. A
    plugin's channel is its name: see `Plugin.send_sync_message` and `handle_sync_message`.
    """

    def __init__(
        self,
        instance_id: str,
        settings: SyncMessagesSettings,
        pubsub: PubSubSettings,
        *,
        telemetry: Telemetry,
        after_commit: AfterCommit,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._after_commit = after_commit
        self._clock = clock or SystemClock()
        self._manager = PubSubManager(
            instance_id,
            pubsub,
            telemetry=telemetry,
            realm=REALM,
            transports=Transports(settings.transport),
            clock=self._clock,
        )

    async def subscribe(
        self,
        channel: str,
        handler: Process,
        *,
        debounce: Duration | None = None,
        max_wait: Duration | None = None,
        on_gap: Callable[[list[str]], object] | None = None,
    ) -> Subscription:
        """Call `handler` with every message of a channel, as `PubSubManager.subscribe`.

        Args:
            channel: a name, without wildcards; channels of publish and subscribe are others.
            handler: ``handler(message)`` or ``handler(message, event)``.
            debounce: seconds; defaults to the setting ``sync_messages.debounce``.
            max_wait: bound of that, seconds.
            on_gap: ``on_gap(channels)``, called when messages may have been missed.

        Raises:
            InvalidNameError: the channel's name is malformed.
            ConfigurationError: as `PubSubManager.subscribe`.
            TopologyError: as there.
        """
        name = check_name("channel", channel)
        wait = self._settings.debounce if debounce is None else debounce
        return await self._manager.subscribe(
            name, handler, debounce=wait, max_wait=max_wait, on_gap=on_gap
        )

    async def unsubscribe(self, channel: str, handler: Process) -> None:
        """Call `handler` no more. An unknown pair is no error."""
        await self._manager.unsubscribe(check_name("channel", channel), handler)

    async def publish(
        self,
        channel: str,
        message: object,
        *,
        transaction: object = None,
        skip_self: bool | None = None,
        only_self: bool = False,
    ) -> str:
        """Send a message to the other instances and return its id, as `PubSubManager.publish`.

        With `transaction` it returns at once, and the message is sent after the commit, or never:
        what goes wrong then is told to `Cluster.on_publish_failure`.

        Args:
            channel: a name.
            message: anything JSON has, null included, or a pydantic model.
            transaction: a session or connection of SQLAlchemy, or an object with
                ``on_commit(callable)`` or ``after_commit(callable)``.
            skip_self: keep it from this instance's own subscriptions. True unless `only_self`.
            only_self: keep it from all other instances.

        Raises:
            ClusterKitError: as `PubSubManager.publish`.
            UnknownTransactionError: nobody can tell when `transaction` is committed.
            ConfigurationError: it cannot be committed.
        """
        outlet = self._manager.outlet
        made = outlet.prepare(channel, message, skip_self=skip_self, only_self=only_self)
        outlet.check()
        if transaction is None:
            await self._after_commit.turn()
            return await outlet.send(made)

        async def send() -> str:
            return await outlet.send(replace(made, published_at=self._clock.wall()))

        parcel = Parcel(kind="sync", channel=made.channel, id=made.id, body=made.body, send=send)
        return await self._after_commit.join(transaction, parcel)

    @property
    def outlet(self) -> BroadcastOutlet:
        """Publishing in two steps; see `BroadcastOutlet`."""
        return self._manager.outlet

    def stats(self) -> dict[str, BroadcastStats]:
        """Return this instance's counters by channel, since it was made."""
        return self._manager.stats()

    def troubles(self) -> list[str]:
        """As `PubSubManager.troubles`."""
        return self._manager.troubles()

    # --- life, led by Cluster ------------------------------------------------------------

    @property
    def used(self) -> bool:
        """Whether anything is subscribed."""
        return self._manager.used

    def lacks(self, reason: str) -> None:
        """As `PubSubManager.lacks`."""
        self._manager.lacks(reason)

    async def open(self, adapter: PubSubAdapter, supervisor: Supervisor) -> None:
        """As `PubSubManager.open`."""
        await self._manager.open(adapter, supervisor)

    def start(self) -> None:
        """Call handlers from now on."""
        self._manager.start()

    async def close(self) -> None:
        """End every subscription and publishing. Registrations stay for another start."""
        await self._manager.close()
