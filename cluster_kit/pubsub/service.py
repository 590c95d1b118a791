"""Publish and subscribe: every instance gets every message."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.broadcast import Event
from cluster_kit.clock import SystemClock
from cluster_kit.codec import JsonCodec
from cluster_kit.errors import ConfigurationError, NotStartedError
from cluster_kit.handler import Handler, Process
from cluster_kit.patterns import check_pattern
from cluster_kit.pubsub.bindings import Bindings
from cluster_kit.pubsub.lane import Lane
from cluster_kit.pubsub.outlet import Outlet
from cluster_kit.pubsub.publishing import Publisher
from cluster_kit.pubsub.reception import Reception
from cluster_kit.pubsub.stats import BroadcastStats, Counters
from cluster_kit.pubsub.subscription import Registration, Subscription, check_options
from cluster_kit.pubsub.surroundings import Options, Surroundings
from cluster_kit.pubsub.transports import Transports

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.broadcast import Binding
    from cluster_kit.clock import Clock, Duration
    from cluster_kit.ports import PubSubAdapter
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
        self._instance_id = instance_id
        self._settings = settings
        self._telemetry = telemetry
        self._realm = realm
        self._clock = clock or SystemClock()
        self._codec = JsonCodec()
        self._transports = transports or Transports(settings.transport, settings.transports)
        publisher = Publisher(
            realm, instance_id, settings, self._transports, self._codec, self._report
        )
        self.outlet: Outlet = Outlet(publisher, self._connected, self._clock)
        self._counters = Counters()
        self._registrations: list[Registration] = []
        self._reception: Reception | None = None
        self._around: Surroundings | None = None
        self._adapter: PubSubAdapter | None = None
        self._missing = ""
        self._released = False
        self._bindings: Bindings | None = None

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
        """
        name = check_pattern(channel)
        options = check_options(debounce, max_wait, on_gap)
        known = self._find(name, handler)
        if known is not None:
            self._change(known, options)
            return known.subscription
        made = Handler(handler, self._codec, second=Event)
        self._refuse_where_missing()
        return await self._register(name, made, options)

    async def unsubscribe(self, channel: str, handler: Process) -> None:
        """Call `handler` no more; see `Subscription.close`. An unknown pair is no error."""
        known = self._find(check_pattern(channel), handler)
        if known is not None:
            await self._remove(known)

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
            NotStartedError: the cluster is not running.
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
        """Return which subscriptions cannot keep up; empty when all is well."""
        return [lane.trouble for lane in self._lanes() if lane.trouble is not None]

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
        self._around = Surroundings(
            kind=self._realm,
            supervisor=supervisor,
            clock=self._clock,
            report=self._report,
            buffer_size=self._settings.buffer_size,
        )
        self._reception = Reception(self._realm, self._instance_id, self._transports, self._report)
        self._adapter = adapter
        self._bindings = Bindings(adapter, self._wanted)
        adapter.listen(self._realm, self._reception)
        for registration in self._registrations:
            self._open_lane(registration)
        await self._adjust()

    def start(self) -> None:
        """Call handlers from now on."""
        self._released = True
        for lane in self._lanes():
            lane.release()

    async def close(self) -> None:
        """End every subscription and publishing. Registrations stay for another start."""
        around, self._around = self._around, None
        self._adapter = self._bindings = self._reception = None
        self._released = False
        lanes = self._lanes()
        for registration in self._registrations:
            registration.lane = None
        for lane in lanes:
            lane.shut()
        if around is not None and lanes:
            closing = [partial(lane.close, self._settings.close_grace) for lane in lanes]
            await around.supervisor.run_all(closing, limit=len(closing))

    # --- inside --------------------------------------------------------------------------

    def _connected(self) -> PubSubAdapter:
        self._refuse_where_missing()
        if self._adapter is None:
            raise NotStartedError(self._realm)
        return self._adapter

    def _find(self, name: str, handler: object) -> Registration | None:
        same = (r for r in self._registrations if r.name == name and r.handler.process == handler)
        return next(same, None)

    @staticmethod
    def _change(registration: Registration, options: Options) -> None:
        registration.options = options
        if registration.lane is not None:
            registration.lane.change(options)

    async def _register(self, name: str, handler: Handler, options: Options) -> Subscription:
        async def leave() -> None:
            await self._remove(registration)

        subscription = Subscription(name, leave)
        registration = Registration(
            name=name, handler=handler, options=options, subscription=subscription
        )
        self._registrations.append(registration)
        self._open_lane(registration)
        try:
            await self._adjust()
        except BaseException:
            self._registrations.remove(registration)
            self._close_lane(registration)
            raise
        return subscription

    async def _remove(self, registration: Registration) -> None:
        if registration not in self._registrations:
            return
        self._registrations.remove(registration)
        lane = self._close_lane(registration)
        try:
            await self._adjust()
        finally:
            if lane is not None:
                await lane.close(self._settings.close_grace)

    def _open_lane(self, registration: Registration) -> None:
        if self._around is None or self._reception is None:
            return
        lane = Lane(registration.name, registration.handler, registration.options, self._around)
        registration.lane = lane
        self._reception.add(lane)
        if self._released:
            lane.release()

    def _close_lane(self, registration: Registration) -> Lane | None:
        lane, registration.lane = registration.lane, None
        if lane is not None:
            lane.shut()
            if self._reception is not None:
                self._reception.remove(lane)
        return lane

    async def _adjust(self) -> None:
        if self._bindings is not None:
            await self._bindings.adjust()

    def _wanted(self) -> set[Binding]:
        of = self._transports.bindings
        return {b for r in self._registrations for b in of(self._realm, r.name)}

    def _lanes(self) -> list[Lane]:
        return [r.lane for r in self._registrations if r.lane is not None]

    def _refuse_where_missing(self) -> None:
        if self._missing:
            raise ConfigurationError(f"{self._realm}: {self._missing}")

    def _report(self, event: str, /, **fields: object) -> None:
        self._counters.count(event, str(fields.get("subscription", fields["channel"])))
        self._telemetry.emit(event, **fields)
