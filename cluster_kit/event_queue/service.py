"""The event queue: a task runs once, on one instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cluster_kit.clock import SystemClock
from cluster_kit.codec import JsonCodec
from cluster_kit.errors import NotStartedError
from cluster_kit.event_queue.consumption import Consumption
from cluster_kit.event_queue.dead_letters import DeadLetters
from cluster_kit.event_queue.ledger import Ledger
from cluster_kit.event_queue.outlet import Outlet
from cluster_kit.event_queue.publishing import Publisher, PublishOptions
from cluster_kit.event_queue.registration import (
    Registration,
    Registrations,
    check_options,
    check_serves,
    make_judge,
)
from cluster_kit.event_queue.stats import ChannelStats, Counters
from cluster_kit.handler import Handler
from cluster_kit.signature import Process

if TYPE_CHECKING:
    from cluster_kit.after_commit import AfterCommit
    from cluster_kit.clock import Clock, Duration
    from cluster_kit.event_queue.surroundings import Surroundings
    from cluster_kit.message import Headers
    from cluster_kit.ports import EventQueueAdapter, QueueDepth, TaskOutlet
    from cluster_kit.retry import RetryPolicy
    from cluster_kit.settings import EventQueueSettings
    from cluster_kit.supervisor import Supervisor
    from cluster_kit.telemetry import Telemetry


class EventQueue:
    """Publishes tasks, and runs each at least once, on one instance: `Cluster.event_queue`."""

    def __init__(  # noqa: PLR0913 - a service names what it stands on
        self,
        app: str,
        instance_id: str,
        settings: EventQueueSettings,
        *,
        telemetry: Telemetry,
        consumes: Callable[[str | None], bool],
        after_commit: AfterCommit,
        clock: Clock | None = None,
    ) -> None:
        self._instance_id = instance_id
        self._settings = settings
        self._consumes = consumes
        self._clock = clock or SystemClock()
        self._codec = JsonCodec()
        self._publisher = Publisher(
            app, instance_id, settings, self._codec, self._clock, after_commit
        )
        self._counters = Counters(telemetry)
        self._ledger = Ledger(self._clock)
        self._registrations = Registrations()
        self._consumption: Consumption | None = None
        self._consuming = False

    # --- declaring consumers -------------------------------------------------------------

    def subscribe(  # noqa: PLR0913 - the options are the interface
        self,
        channel: str,
        process: Process,
        *,
        concurrency: int = 1,
        idle: Callable[[], bool] | None = None,
        timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
        max_retries: int | None = None,
        shared: bool = False,
        serves: str | None = None,
    ) -> None:
        """Run the tasks of a channel with `process`. Legal before and after start.

        The same function again has no effect; options that differ are named in the log.

        Args:
            channel: name without the app's prefix.
            process: ``process(payload)`` or ``process(payload, delivery)``; a sync function runs
                in a thread. An annotated payload is validated; a bad one is dead-lettered.
                Returning means done. Raising `Retry`, `Snooze` or `Reject` says what is to
                happen; any other exception is left to `retry`.
            concurrency: most runs at a time in this instance; 0 leaves it to the setting
                ``event_queue.max_in_flight``. Nothing beyond it is taken from the broker.
            idle: asked before each task is taken and every 200 ms while it says no; false stops
                this channel in this instance until it is true again.
            timeout: seconds a run may take, for tasks published without one. Defaults to the
                setting ``event_queue.timeout``.
            retry: backoff and which errors are retried. Defaults to the settings'.
            max_retries: failed runs after the first before a task is dead-lettered, for tasks
                published without one. Defaults to the setting ``event_queue.max_retries``.
            shared: the queue has no app prefix and serves several applications.
            serves: consume only where the worker mode serves this topic.

        Raises:
            InvalidNameError: the channel's name is malformed.
            AlreadySubscribedError: the channel, or a shared one of its full name, has a handler.
            ConfigurationError: an option, or the handler's signature, is wrong.
        """
        queue = self._publisher.queue(channel, shared=shared)
        self._registrations.check(queue, process)
        options = check_options(
            self._settings,
            concurrency=concurrency,
            idle=idle,
            timeout=timeout,
            max_retries=max_retries,
        )
        registration = Registration(
            queue=queue,
            handler=Handler(process, self._codec),
            judge=make_judge(self._settings, retry, self._instance_id),
            options=options,
            serves=check_serves(serves),
        )
        active = self._active() if self._consuming else None
        if self._registrations.add(registration) and active and self._wanted(registration):
            active.open_later(registration)

    def unsubscribe(self, channel: str, *, shared: bool = False) -> None:
        """Take nothing more from a channel; what runs finishes. An unknown channel is no error."""
        queue = self._publisher.queue(channel, shared=shared)
        if self._consumption is not None:
            self._active().retire(queue)
        self._registrations.remove(queue)

    def topics(self) -> set[str]:
        """Return the topics named by `serves` of the subscriptions so far."""
        return {r.serves for r in self._registrations if r.serves is not None}

    # --- publishing ----------------------------------------------------------------------

    async def publish(  # noqa: PLR0913 - the options are the interface
        self,
        channel: str,
        payload: object,
        *,
        timeout: Duration | None = None,
        max_retries: int | None = None,
        delay: Duration | None = None,
        ttl: Duration | None = None,
        message_id: str | None = None,
        headers: Headers | None = None,
        transaction: object = None,
        shared: bool = False,
    ) -> str:
        """Store a task for one instance to run and return its id.

        Returns once the broker has it on a majority of its nodes. No subscriber is needed. Takes
        at most ``event_queue.publish_timeout`` seconds; within them a lost connection is
        survived by publishing again under the same id.

        With `transaction` it returns at once and is stored after the commit, or never; what goes
        wrong then is told to `Cluster.on_publish_failure`.

        Args:
            channel: name without the app's prefix.
            payload: anything JSON has, or a pydantic model.
            timeout: seconds each run of the handler may take.
            max_retries: failed runs after the first before it is dead-lettered.
            delay: seconds it waits in the broker before its first run.
            ttl: seconds it may wait for a run once it is due; then it is dead-lettered.
            message_id: by default fresh. A second task under it is dropped by an instance that runs
                the first, or has finished it within five minutes.
            headers: str, int, bool and None values that travel with the task.
            transaction: of SQLAlchemy, or an object with a hook ``on_commit`` or
                ``after_commit``; `delay` and `ttl` count from its commit.
            shared: the channel of a queue without app prefix.

        Raises:
            LifecycleError: the cluster is not running, or runs on another event loop.
            ConfigurationError: a name, an option or the broker's topology is wrong.
            UnknownTransactionError: nobody can tell when `transaction` is committed.
            EncodeError: payload or headers cannot travel.
            MessageTooLargeError: over ``event_queue.max_payload_bytes`` or 16 KiB of headers.
            PublishRefused, Unroutable: the broker said no, has no queue for it; nothing is stored.
            ConnectionLost: no connection in time; nothing was sent.
            PublishUnconfirmed: sent, but not confirmed in time; it may be stored.
        """
        options = PublishOptions.check(
            timeout=timeout, max_retries=max_retries, delay=delay, ttl=ttl, headers=headers
        )
        around, queue = self._active().shared, self._publisher.queue(channel, shared=shared)
        envelope = self._publisher.envelope(queue, payload, options, message_id)
        if transaction is None:
            return await self._publisher.send(envelope, options.delay, around)
        return await self._publisher.send_after(transaction, envelope, options, self._shared)

    async def publish_many(  # noqa: PLR0913 - the options are the interface
        self,
        channel: str,
        payloads: Iterable[object],
        *,
        timeout: Duration | None = None,
        max_retries: int | None = None,
        delay: Duration | None = None,
        ttl: Duration | None = None,
        headers: Headers | None = None,
        transaction: object = None,
        shared: bool = False,
    ) -> list[str]:
        """Store many tasks at once, pipelined, and return their ids in order; else as `publish`.

        All payloads are encoded before the first is sent. Each has a fresh id.

        Raises:
            PublishManyError: some were not confirmed; it says which were.
        """
        options = PublishOptions.check(
            timeout=timeout, max_retries=max_retries, delay=delay, ttl=ttl, headers=headers
        )
        around, queue = self._shared(), self._publisher.queue(channel, shared=shared)
        envelopes = self._publisher.envelopes(queue, payloads, options)
        if transaction is not None:
            return await self._publisher.send_all_after(
                transaction, envelopes, options, self._shared
            )
        return await self._publisher.send_all(envelopes, options.delay, around)

    @property
    def outlet(self) -> TaskOutlet:
        """Publishing in two steps; see `TaskOutlet`."""
        return Outlet(self._publisher, self._shared)

    # --- looking after it ----------------------------------------------------------------

    def dead_letters(self, channel: str, *, shared: bool = False) -> DeadLetters:
        """Return the dead letters of a channel."""
        queue = self._publisher.queue(channel, shared=shared)
        timeout = self._settings.publish_timeout
        return DeadLetters(queue, self._adapter, self._codec, self._clock, publish_timeout=timeout)

    def stats(self) -> dict[str, ChannelStats]:
        """Return this instance's counters by channel, since it was made.

        A channel it had nothing to do with is not in it.
        """
        return self._counters.snapshot(self._consumption.running() if self._consumption else {})

    async def depth(self, channel: str, *, shared: bool = False) -> QueueDepth | None:
        """Count a channel's messages at the broker; None when it has no queue yet."""
        return await self._adapter().depth(self._publisher.queue(channel, shared=shared))

    async def channels(self) -> list[str]:
        """Return the channels of this application that have a queue at the broker, sorted."""
        return [queue.channel for queue in await self._adapter().channels()]

    async def purge(self, channel: str, *, shared: bool = False) -> int:
        """Drop the tasks that wait for a worker, no others; return how many."""
        return await self._adapter().purge(self._publisher.queue(channel, shared=shared))

    def troubles(self) -> list[str]:
        """Return why consumers that should be there are not; empty when all is well."""
        return [] if self._consumption is None else self._consumption.troubles()

    # --- life, led by Cluster ------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether it has a connected adapter."""
        return self._consumption is not None

    def attach(self, adapter: EventQueueAdapter, supervisor: Supervisor) -> None:
        """Use a connected adapter: publishing is possible from now on."""
        self._consumption = Consumption.on(
            adapter,
            supervisor,
            ledger=self._ledger,
            clock=self._clock,
            report=self._counters.report,
            publish_timeout=self._settings.publish_timeout,
        )

    async def start(self) -> None:
        """Open every consumer declared so far. Raises as `EventQueueAdapter.consume`."""
        self._consuming = True
        await self._active().start(self._registrations, self._wanted)

    async def quiet(self) -> None:
        """Take nothing more and give back what had not started."""
        self._consuming = False
        await self._active().quiet()

    async def drain(self, timeout: float) -> list[str]:
        """Wait for running tasks, cancel them after `timeout` seconds; return their ids, sorted."""
        return await self._active().drain(timeout, self._settings.cancel_grace)

    async def close(self) -> None:
        """Close the consumers; publishing is over. Registrations stay for another start."""
        consumption, self._consumption = self._consumption, None
        self._consuming = False
        if consumption is not None:
            await consumption.close()

    # --- inside --------------------------------------------------------------------------

    def _active(self) -> Consumption:
        if self._consumption is None:
            raise NotStartedError("event queue")
        self._consumption.loop.check()
        return self._consumption

    def _shared(self) -> Surroundings:
        return self._active().shared

    def _adapter(self) -> EventQueueAdapter:
        return self._shared().adapter

    def _wanted(self, registration: Registration) -> bool:
        return registration in self._registrations and self._consumes(registration.serves)
