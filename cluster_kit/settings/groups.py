"""Groups of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, Unpack

from cluster_kit.broadcast import Transport
from cluster_kit.clock import Duration
from cluster_kit.errors import SettingsError
from cluster_kit.retry import RetryPolicy
from cluster_kit.settings.group import Group, group
from cluster_kit.settings.values import (
    BufferSize,
    Count,
    Expiry,
    Factor,
    Grace,
    InFlight,
    OptionalTimeout,
    Retries,
    SegmentBytes,
    ServerUrl,
    Share,
    SizeBytes,
    Timeout,
    TransportChoices,
    TransportName,
    Wait,
)

_MEBIBYTE = 1024 * 1024


class RetryValues(TypedDict, total=False):
    """`RetrySettings` as a dict."""

    initial_delay: Duration
    factor: float
    max_delay: Duration
    jitter: float


@group
class RetrySettings(Group):
    """Backoff of tasks whose subscription brings no policy of its own.

    Attributes:
        initial_delay: seconds before the second attempt. Defaults to 0.5; 0 means at once.
        factor: by which each further delay grows, 1 or more. Defaults to 2.
        max_delay: upper bound of a delay, jitter included, seconds; at least `initial_delay`.
            Defaults to 600.
        jitter: share by which a delay varies at random, from 0 to 1. Defaults to 0.1.
    """

    initial_delay: Wait = 0.5
    factor: Factor = 2.0
    max_delay: Wait = 600.0
    jitter: Share = 0.1

    def __init__(self, **values: Unpack[RetryValues]) -> None:
        super().__init__(**values)

    def __post_init__(self) -> None:
        """Check the order; called by pydantic."""
        if self.initial_delay > self.max_delay:
            given = self.max_delay != type(self).max_delay
            name = "max_delay" if given else "initial_delay"
            text = f"initial_delay, {self.initial_delay:g}, is above max_delay, {self.max_delay:g}"
            raise SettingsError(text, [((name,), text)])

    def policy(self) -> RetryPolicy:
        """Return the policy these settings describe."""
        return RetryPolicy(
            initial_delay=self.initial_delay,
            factor=self.factor,
            max_delay=self.max_delay,
            jitter=self.jitter,
        )


class CapabilityValues(TypedDict, total=False):
    """What every capability's settings have."""

    url: str | ServerUrl | None


class CacheSettingsValues(CapabilityValues, total=False):
    """`CacheSettings` as a dict."""

    ttl: Duration | None
    timeout: Duration
    max_value_bytes: int
    l1_max_bytes: int
    l1_ttl: Duration
    degraded_ttl: Duration
    promise_ttl: Duration
    publish_timeout: Duration
    beat: Duration
    transport: Transport


@group
class CacheSettings(Group):
    """Settings of the caches. Durations are seconds.

    Attributes:
        url: of the default store; None leaves it to `Settings.url_for`.
        ttl: of values whose call and cache name none. Defaults to none: they do not expire.
        timeout: for each call of a store, from when it is its turn. Defaults to 0.5.
        max_value_bytes: largest encoded value. Defaults to 8 MiB.
        l1_max_bytes: of what one cache holds in this process, about. Defaults to 64 MiB.
        l1_ttl: how long a value of a store is held in this process at most, unless the cache says
            otherwise. Defaults to 30.
        degraded_ttl: the same while invalidations of other instances may be missed. Defaults to
            2.
        promise_ttl: after which others load a value whose loading instance is gone. Defaults to
            10.
        publish_timeout: until an invalidation that other instances could not be told is put off,
            and until the first use of a cache goes on without hearing of any. Defaults to 2.
        beat: without an invalidation after which other instances are shown the number of the last
            one, in case they missed it; twice more later. Defaults to 1.
        transport: of invalidations, the same in all instances. Defaults to ``ephemeral``.
    """

    url: ServerUrl | None = None
    ttl: OptionalTimeout = None
    timeout: Timeout = 0.5
    max_value_bytes: SizeBytes = 8 * _MEBIBYTE
    l1_max_bytes: SizeBytes = 64 * _MEBIBYTE
    l1_ttl: Timeout = 30.0
    degraded_ttl: Timeout = 2.0
    promise_ttl: Timeout = 10.0
    publish_timeout: Timeout = 2.0
    beat: Timeout = 1.0
    transport: TransportName = "ephemeral"

    def __init__(self, **values: Unpack[CacheSettingsValues]) -> None:
        super().__init__(**values)


class LockValues(CapabilityValues, total=False):
    """`LockSettings` as a dict."""

    timeout: Duration


@group
class LockSettings(Group):
    """Settings of the locks.

    Attributes:
        url: of their server; None leaves it to `Settings.url_for`.
        timeout: seconds to wait for a lock, unless the call says otherwise. Defaults to 60.
    """

    url: ServerUrl | None = None
    timeout: Timeout = 60.0

    def __init__(self, **values: Unpack[LockValues]) -> None:
        super().__init__(**values)


class EventQueueValues(CapabilityValues, total=False):
    """`EventQueueSettings` as a dict."""

    timeout: Duration
    max_retries: int
    retry: RetrySettings | RetryValues
    crash_limit: int
    max_in_flight: int
    max_payload_bytes: int
    publish_timeout: Duration
    cancel_grace: Duration


@group
class EventQueueSettings(Group):
    """Settings of the event queue. Durations are seconds.

    Attributes:
        url: of its server; None leaves it to `Settings.url_for`.
        timeout: for each run of a handler, unless task or subscription say otherwise.
            Defaults to 60.
        max_retries: failed attempts after the first before a task is a dead letter, unless task
            or subscription say otherwise. Defaults to 3.
        retry: backoff between attempts.
        crash_limit: deliveries without any outcome (a dead worker, a lost connection, a drain)
            a task may have before it is a dead letter. Defaults to 10.
        max_in_flight: most tasks one subscription with ``concurrency=0`` runs at a time, from 1
            to 65,535. Defaults to 1,000.
        max_payload_bytes: largest encoded payload. Defaults to 8 MiB.
        publish_timeout: until a publish without confirmation raises. Defaults to 10.
        cancel_grace: between cancelling handlers at stop and leaving them behind. Defaults to 5.
    """

    url: ServerUrl | None = None
    timeout: Timeout = 60.0
    max_retries: Retries = 3
    retry: RetrySettings = RetrySettings()
    crash_limit: Count = 10
    max_in_flight: InFlight = 1_000
    max_payload_bytes: SizeBytes = 8 * _MEBIBYTE
    publish_timeout: Timeout = 10.0
    cancel_grace: Grace = 5.0

    def __init__(self, **values: Unpack[EventQueueValues]) -> None:
        super().__init__(**values)


class PubSubValues(CapabilityValues, total=False):
    """`PubSubSettings` as a dict."""

    transport: Transport
    transports: Mapping[str, Transport] | str
    buffer_size: int
    max_payload_bytes: int
    publish_timeout: Duration
    close_grace: Duration
    sticky_expires: Duration
    sticky_max_messages: int
    stream_max_age: Duration
    stream_max_bytes: int
    stream_segment_bytes: int


@group
class PubSubSettings(Group):
    """Settings of publish and subscribe. Durations are seconds.

    `transport` and `transports` must be the same in all instances of an application: a publisher
    chooses where a message goes by them, a subscriber where it looks.

    Attributes:
        url: of its server; None leaves it to `Settings.url_for`.
        transport: of channels that no pattern in `transports` stands for. Defaults to
            ``ephemeral``.
        transports: patterns of channels with their transport, the first that fits decides; as
            text ``orders.#=stream,cache.*=sticky``. Defaults to none.
        buffer_size: most messages that wait in one subscription; newer ones are dropped, counted
            and told as a gap. Defaults to 10,000.
        max_payload_bytes: largest encoded message. Defaults to 8 MiB.
        publish_timeout: until a publish without confirmation raises. Defaults to 10.
        close_grace: for handlers under way when their subscription closes. Defaults to 5.
        sticky_expires: that sticky messages are kept for an instance that is away. Defaults to
            120.
        sticky_max_messages: kept for it at most; the oldest go. Defaults to 10,000.
        stream_max_age: that stream messages are kept. Defaults to 3,600.
        stream_max_bytes: kept at most in the stream of each realm. Defaults to 1,000,000,000.
        stream_segment_bytes: what goes of a stream goes in parts of this size. Defaults to
            50,000,000.
    """

    url: ServerUrl | None = None
    transport: TransportName = "ephemeral"
    transports: TransportChoices = ()
    buffer_size: BufferSize = 10_000
    max_payload_bytes: SizeBytes = 8 * _MEBIBYTE
    publish_timeout: Timeout = 10.0
    close_grace: Grace = 5.0
    sticky_expires: Expiry = 120.0
    sticky_max_messages: BufferSize = 10_000
    stream_max_age: Expiry = 3600.0
    stream_max_bytes: SizeBytes = 1_000_000_000
    stream_segment_bytes: SegmentBytes = 50_000_000

    def __init__(self, **values: Unpack[PubSubValues]) -> None:
        super().__init__(**values)


class SyncMessagesValues(TypedDict, total=False):
    """`SyncMessagesSettings` as a dict."""

    transport: Transport
    debounce: Duration


@group
class SyncMessagesSettings(Group):
    """Settings of sync messages; server and limits are those of publish and subscribe.

    Attributes:
        transport: the same in all instances of an application. Defaults to ``sticky``.
        debounce: seconds, of subscriptions that name none. Defaults to 0: every message counts.
    """

    transport: TransportName = "sticky"
    debounce: Wait = 0.0

    def __init__(self, **values: Unpack[SyncMessagesValues]) -> None:
        super().__init__(**values)
