"""Publish and subscribe: every instance gets every message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.broadcast import Event
from cluster_kit.clock import SystemClock
from cluster_kit.codec import JsonCodec
from cluster_kit.errors import ConfigurationError, NotStartedError
from cluster_kit.handler import Handler
from cluster_kit.patterns import check_pattern
from cluster_kit.pubsub.context import Options, PubSubContext
from cluster_kit.pubsub.numbering import Numbering
from cluster_kit.pubsub.outlet import Outlet
from cluster_kit.pubsub.publishing import Publisher
from cluster_kit.pubsub.session import Session
from cluster_kit.pubsub.stats import BroadcastStats, Counters
from cluster_kit.pubsub.subscription import Registration, Subscription, check_options
from cluster_kit.pubsub.transports import Transports
from cluster_kit.pubsub.twins import Twins
from cluster_kit.signature import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster_kit.broadcast import Binding
    from cluster_kit.clock import Clock, Duration
    from cluster_kit.ports import PubSubAdapter
    from cluster_kit.pubsub.lane import Lane
    from cluster_kit.settings import PubSubSettings
    from cluster_kit.supervisor import Supervisor
    from cluster_kit.telemetry import Telemetry


class PubSubManager:
    """Sends messages to every instance. Got from `Cluster.pubsub`.

    A subscription hears every message of its channel, in each publisher's order. What it could
    not be given, it is told of: see `on_gap` of `subscribe`.

    Attributes:
        outlet: publishing in two steps; see `BroadcastOutlet`.
    """

    def __init__(
        self,
        instance_id: str,
        settings: PubSubSettings,
        *,
        telemetry: Telemetry,
        realm: str = "pubsub",
        transports: Transports | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._realm = realm
        self._clock = clock or SystemClock()
        self._codec = JsonCodec()
        self._transports = transports or Transports(settings.transport, settings.transports)
        self._numbering = Numbering(instance_id, self._clock)
        publisher = Publisher(
            realm, self._numbering, settings, self._transports, self._codec, self._report
        )
        self.outlet: Outlet = Outlet(publisher, self._connected, self._clock)
        self._counters = Counters()
        self._registrations: list[Registration] = []
        self._session: Session | None = None
        self._missing = ""

    # --- subscribing ---------------------------------------------------------------------

    async def subscribe(
        self,
        channel: str,
        handler: Process,
        *,
        debounce: Duration = 0.0,
        max_wait: Duration | None = None,
        on_gap: Callable[[list[str]], object] | None = None,
    ) -> Subscription:
        """Call `handler` with every message of a channel. Legal before and after start.

        On return messages reach this instance; when the link to the broker is away, as soon as
        it is back, and then `on_gap` is called. Handlers are called once all plugins are loaded;
        what arrives before that waits. The same handler on the same channel again has no effect
        but that of its options, which replace the former.

        Args:
            channel: name without the app's prefix, or a pattern of names: ``*`` stands for one
                word between dots, ``#`` for any number of words.
            handler: ``handler(message)`` or ``handler(message, event)``, for one message at a
                time, in order; a sync function runs in a thread. An annotated message is
                validated. One that fails is logged and counted; the next message follows.
            debounce: seconds; of equal messages only the last is handled, once none has come for
                so long. 0 handles each.
            max_wait: seconds after the first of these at which it is handled in any case.
            on_gap: ``on_gap(channels)``, called when messages may have been missed, so that what
                was built from them can be loaded anew. `channels` are names without prefix, or
                the pattern subscribed. Async, or sync, then in a thread.

        Raises:
            InvalidNameError: channel or pattern is malformed.
            ConfigurationError: an option, or the handler's signature, is wrong; or this
                deployment has no publish and subscribe.
            TopologyError: the broker has something else under a name that this needs.
            LifecycleError: the cluster runs on another event loop.
        """
        self._refuse_elsewhere()
        name = check_pattern(channel)
        options = check_options(debounce, max_wait, on_gap)
        known = self._find(name, handler)
        if known is not None:
            known.change(options)
            await self._adjust(name)  # whoever made it may still be waiting for that
            if known in self._registrations:
                return known.subscription
        made = Handler(handler, self._codec, second=Event)
        self._refuse_where_missing()
        return await self._register(name, made, options)

    async def unsubscribe(self, channel: str, handler: Process) -> None:
        """Call `handler` no more; see `Subscription.close`. An unknown pair is no error."""
        self._refuse_elsewhere()
        known = self._find(check_pattern(channel), handler)
        if known is not None:
            await self._remove(known)

    def linked_since(self, channel: str) -> float | None:
        """Return since when a channel one has subscribed to is linked, seconds since 1970.

        Another value after each loss, however short; None while nothing comes or can be sent.
        """
        return None if self._session is None else self._session.linked_since(channel)

    def can_publish(self) -> bool:
        """Return whether `publish` need not wait for the link, as known now."""
        return self._session is not None and self._session.adapter.can_publish()

    # --- publishing ----------------------------------------------------------------------

    async def publish(
        self,
        channel: str,
        message: object,
        *,
        skip_self: bool | None = None,
        only_self: bool = False,
    ) -> str:
        """Send a message to every instance that is subscribed, and return its id.

        Returns once the broker has it. No subscriber is needed. Takes at most
        ``pubsub.publish_timeout`` seconds; within them a lost connection is survived by
        publishing again.

        Args:
            channel: name without the app's prefix.
            message: anything JSON has, null included, or a pydantic model.
            skip_self: keep it from this instance's own subscriptions. True unless `only_self`.
            only_self: keep it from all other instances.

        Raises:
            LifecycleError: the cluster is not running, or runs on another event loop.
            ConfigurationError: a name, an option or the broker's topology is wrong; or this
                deployment has no publish and subscribe.
            EncodeError: the message cannot travel.
            MessageTooLargeError: over ``pubsub.max_payload_bytes``.
            PublishRefused: the broker said no; nobody gets it.
            ConnectionLost: no connection in time; nothing was sent.
            PublishUnconfirmed: sent, but not confirmed in time; it may arrive.
        """
        made = self.outlet.prepare(channel, message, skip_self=skip_self, only_self=only_self)
        return await self.outlet.send(made)

    # --- looking after it ----------------------------------------------------------------

    def stats(self) -> dict[str, BroadcastStats]:
        """Return this instance's counters since it was made.

        What was received is counted by subscription, what was published by channel.
        """
        return self._counters.snapshot(self._lanes())

    def troubles(self) -> list[str]:
        """Return what is wrong; empty when all is well.

        That is each subscription that cannot keep up, and another process with this instance id.
        """
        found = [lane.trouble for lane in self._lanes()]
        if self._session is not None:
            found.append(self._session.twins.trouble)
        return [trouble for trouble in found if trouble is not None]

    @property
    def used(self) -> bool:
        """Whether anything is subscribed."""
        return bool(self._registrations)

    # --- life, led by Cluster ------------------------------------------------------------

    def lacks(self, reason: str) -> None:
        """Refuse every use, because there is no adapter for it; an empty reason ends that.

        Raises:
            ConfigurationError: something is subscribed.
        """
        self._missing = reason
        if self._registrations:
            self._refuse_where_missing()

    async def open(self, adapter: PubSubAdapter, supervisor: Supervisor) -> None:
        """Use a connected adapter: publishing is possible, messages arrive but are held back.

        Raises:
            TopologyError: as `PubSubAdapter.bind`.
        """
        around = PubSubContext(
            kind=self._realm,
            supervisor=supervisor,
            clock=self._clock,
            report=self._report,
            buffer_size=self._settings.buffer_size,
        )
        twins = Twins(self._numbering, self._clock)
        self._session = Session(adapter, around, self._transports, twins, self._wanted)
        for registration in self._registrations:
            self._session.enter(registration)
        await self._adjust(*{registration.name for registration in self._registrations})

    def start(self) -> None:
        """Call handlers from now on."""
        if self._session is not None:
            self._session.release(self._lanes())

    async def close(self) -> None:
        """End every subscription and publishing. Registrations stay for another start."""
        session, self._session = self._session, None
        if session is not None:
            await session.close(self._registrations, self._settings.close_grace)

    # --- inside --------------------------------------------------------------------------

    def _connected(self) -> PubSubAdapter:
        self._refuse_where_missing()
        if self._session is None:
            raise NotStartedError(self._realm)
        self._session.loop.check()
        return self._session.adapter

    def _find(self, name: str, handler: object) -> Registration | None:
        same = (r for r in self._registrations if r.name == name and r.handler.process == handler)
        return next(same, None)

    async def _register(self, name: str, handler: Handler, options: Options) -> Subscription:
        async def leave() -> None:
            await self._remove(registration)

        subscription = Subscription(name, leave)
        registration = Registration(
            name=name, handler=handler, options=options, subscription=subscription
        )
        self._registrations.append(registration)
        if self._session is not None:
            self._session.enter(registration)
        try:
            await self._adjust(name)
        except BaseException as exc:
            self._drop(registration)
            if isinstance(exc, Exception) and self._session is not None:
                await self._session.retract()
            raise
        return subscription

    async def _remove(self, registration: Registration) -> None:
        self._refuse_elsewhere()
        self._drop(registration)
        try:
            await self._adjust()
        finally:
            if registration.left is not None:  # whoever closes it, too, waits for its last call
                await registration.left.close(self._settings.close_grace)

    def _drop(self, registration: Registration) -> None:
        if registration in self._registrations:
            self._registrations.remove(registration)
        if self._session is not None:
            self._session.leave(registration)

    async def _adjust(self, *names: str) -> None:
        """Receive what is wanted; raise what goes wrong with `names`."""
        if self._session is not None:
            await self._session.adjust(self._bindings(names))
            for lane in self._lanes():
                if lane.name in names:
                    lane.bound()

    def _wanted(self) -> set[Binding]:
        return self._bindings(registration.name for registration in self._registrations)

    def _bindings(self, names: Iterable[str]) -> set[Binding]:
        of = self._transports.bindings
        return {binding for name in names for binding in of(self._realm, name)}

    def _lanes(self) -> list[Lane]:
        return [r.lane for r in self._registrations if r.lane is not None]

    def _refuse_where_missing(self) -> None:
        if self._missing:
            raise ConfigurationError(f"{self._realm}: {self._missing}")

    def _refuse_elsewhere(self) -> None:
        if self._session is not None:
            self._session.loop.check()

    def _report(self, event: str, /, **fields: object) -> None:
        self._counters.count(event, str(fields.get("subscription", fields["channel"])))
        self._telemetry.emit(event, **fields)
