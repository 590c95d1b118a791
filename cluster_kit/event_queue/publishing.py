"""Turns what a caller publishes into an envelope, refusing what could not travel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from cluster_kit.after_commit import Parcel
from cluster_kit.checks import whole_number
from cluster_kit.clock import MAX_WAIT, Clock, Duration, seconds
from cluster_kit.errors import (
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    MessageTooLargeError,
    PublishManyError,
    TransportError,
)
from cluster_kit.message import MAX_RETRIES, RESERVED_HEADERS, ROUTING_HEADERS, Envelope, Headers
from cluster_kit.names import QueueName, check_channel, check_message_id, check_queue, new_id

if TYPE_CHECKING:
    from cluster_kit.after_commit import AfterCommit
    from cluster_kit.codec import Codec
    from cluster_kit.event_queue.surroundings import Surroundings
    from cluster_kit.settings import EventQueueSettings

MAX_HEADERS_BYTES = 16 * 1024
"""Most bytes of user headers, names and values together."""

PIPELINE = 256
"""Publishes of one batch that are under way at a time."""

QUEUES_KEPT = 1_000
"""Names of queues kept at hand, so that they need not be checked again."""

MAX_HEADER_NAME_BYTES = 128
"""Longest name of a user header, bytes of UTF-8."""
_INT64 = 2**63


class PublishOptions(NamedTuple):
    """The options of one publish, checked. Durations are seconds."""

    timeout: float | None
    max_retries: int | None
    delay: float
    ttl: float | None
    headers: Headers

    @classmethod
    def check(
        cls,
        *,
        timeout: Duration | None,
        max_retries: int | None,
        delay: Duration | None,
        ttl: Duration | None,
        headers: Headers | None,
    ) -> PublishOptions:
        """Return the options, or raise `ConfigurationError` or `EncodeError` naming the bad one."""
        given = timeout, max_retries, delay, ttl, headers
        if given == _NOTHING:
            return _NO_OPTIONS
        return cls(
            timeout=check_timeout(timeout),
            max_retries=check_max_retries(max_retries),
            delay=0.0 if delay is None else seconds("delay", delay, limit=MAX_WAIT),
            ttl=None if ttl is None else seconds("ttl", ttl, zero=False, limit=MAX_WAIT),
            headers=check_headers(headers),
        )


_NOTHING = (None,) * 5
_NO_OPTIONS = PublishOptions(timeout=None, max_retries=None, delay=0.0, ttl=None, headers={})


class Publisher:
    """Makes envelopes of one instance's tasks and has them stored."""

    def __init__(
        self,
        app: str,
        instance_id: str,
        settings: EventQueueSettings,
        codec: Codec,
        clock: Clock,
        after_commit: AfterCommit,
    ) -> None:
        self._app = app
        self._instance_id = instance_id
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._after_commit = after_commit
        self._queues: dict[tuple[str, bool], QueueName] = {}

    def queue(self, channel: object, *, shared: object) -> QueueName:
        """Return the queue of a channel, or raise `ConfigurationError`: a name or flag is wrong."""
        if shared is not True and shared is not False:
            raise ConfigurationError(f"shared must be True or False, not {shared!r}")
        known = self._queues.get((channel, shared)) if isinstance(channel, str) else None
        if known is not None:
            return known
        name = check_channel(channel)
        if len(self._queues) >= QUEUES_KEPT:
            self._queues.clear()
        queue = check_queue(QueueName(None if shared else self._app, name))
        self._queues[name, shared] = queue
        return queue

    def envelope(
        self,
        queue: QueueName,
        payload: object,
        options: PublishOptions,
        message_id: str | None = None,
    ) -> Envelope:
        """Return the task as it will travel.

        Raises:
            EncodeError: the payload has no form in the codec.
            MessageTooLargeError: it has too many bytes.
            InvalidNameError: the message id is malformed.
        """
        try:
            body = self._codec.encode(payload)
        except EncodeError as exc:
            raise EncodeError(f"{exc} (for channel {queue.channel})") from exc
        limit = self._settings.max_payload_bytes
        if len(body) > limit:
            raise MessageTooLargeError("the payload", len(body), limit)
        now = self._clock.wall()
        return Envelope(
            queue=queue,
            id=new_id() if message_id is None else check_message_id(message_id),
            body=body,
            content_type=self._codec.content_type,
            published_at=now,
            max_retries=options.max_retries,
            timeout=options.timeout,
            expires_at=None if options.ttl is None else now + options.delay + options.ttl,
            origin=self._instance_id,
            headers=options.headers or {},
        )

    def envelopes(
        self, queue: QueueName, payloads: Iterable[object], options: PublishOptions
    ) -> list[Envelope]:
        """Return the tasks of a batch; as `envelope`, and the error says which one it is about."""
        made: list[Envelope] = []
        for index, payload in enumerate(check_many(payloads)):
            try:
                made.append(self.envelope(queue, payload, options))
            except EncodeError as exc:
                raise EncodeError(f"payloads[{index}]: {exc}") from exc
        return made

    async def send(
        self, envelope: Envelope, delay: float, shared: Surroundings, *, committed: bool = False
    ) -> str:
        """Store a task, report it, return its id. Raises as `EventQueueAdapter.publish`.

        What was committed before is sent first, unless this is `committed` itself.
        """
        if not committed and self._after_commit.beginning:
            await self._after_commit.turn()
        timeout = self._settings.publish_timeout
        await shared.adapter.publish(envelope, delay=delay, timeout=timeout)
        channel = envelope.queue.channel
        shared.report("task.published", channel=channel, id=envelope.id, delay=delay)
        return envelope.id

    async def send_after(
        self,
        transaction: object,
        envelope: Envelope,
        options: PublishOptions,
        shared: Callable[[], Surroundings],
    ) -> str:
        """Store a task after a commit, from which its times count; return its id at once."""

        async def send() -> str:
            now = self._clock.wall()
            expires_at = None if options.ttl is None else now + options.delay + options.ttl
            fresh = replace(envelope, published_at=now, expires_at=expires_at)
            return await self.send(fresh, options.delay, shared(), committed=True)

        channel = envelope.queue.channel
        parcel = Parcel(kind="task", channel=channel, id=envelope.id, body=envelope.body, send=send)
        return await self._after_commit.join(transaction, parcel)

    async def send_all_after(
        self,
        transaction: object,
        envelopes: Sequence[Envelope],
        options: PublishOptions,
        shared: Callable[[], Surroundings],
    ) -> list[str]:
        """As `send_after` for each, in order."""
        return [await self.send_after(transaction, e, options, shared) for e in envelopes]

    async def send_all(
        self, envelopes: Sequence[Envelope], delay: float, shared: Surroundings
    ) -> list[str]:
        """Store many tasks, pipelined; `PublishManyError` when some were not confirmed.

        Once one has failed for want of a connection or at its deadline, those not begun fail
        without waiting for theirs: a batch ends in time however long it is.
        """
        late: list[TransportError] = []

        async def send(envelope: Envelope) -> str:
            if late:
                raise ConnectionLost(f"not sent, after another of the batch failed: {late[0]}")
            began = self._clock.monotonic()
            try:
                return await self.send(envelope, delay, shared)
            except TransportError as exc:
                waited = self._clock.monotonic() - began
                if isinstance(exc, ConnectionLost) or waited >= self._settings.publish_timeout:
                    late.append(exc)
                raise

        calls = [partial(send, envelope) for envelope in envelopes]
        results = await shared.supervisor.run_all(calls, limit=PIPELINE)
        outcomes = list(zip(envelopes, results, strict=True))
        failed = {e.id: r for e, r in outcomes if isinstance(r, Exception)}
        if failed:
            raise PublishManyError([e.id for e in envelopes if e.id not in failed], failed)
        return [e.id for e in envelopes]


def check_many(payloads: object) -> Iterable[object]:
    """Return the payloads of a batch, or raise `ConfigurationError` for what is one payload."""
    kind = type(payloads).__name__
    if isinstance(payloads, Iterable) and not isinstance(payloads, str | bytes | Mapping):
        return cast("Iterable[object]", payloads)
    raise ConfigurationError(f"payloads must be a list of payloads, not one {kind}")


def check_timeout(timeout: Duration | None) -> float | None:
    """Return the timeout of a run in seconds; None leaves it to the next default."""
    return None if timeout is None else seconds("timeout", timeout, zero=False, limit=MAX_WAIT)


def check_max_retries(value: int | None) -> int | None:
    """Return a legal `max_retries`, or raise `ConfigurationError`."""
    return None if value is None else whole_number("max_retries", value, most=MAX_RETRIES)


def check_headers(headers: object) -> Headers:
    """Return a copy of legal user headers.

    Floats are refused because AMQP clients disagree on their width: a timestamp sent as a float
    comes back seconds off.

    Raises:
        EncodeError: a name or value that cannot travel unchanged; the text names the header.
        MessageTooLargeError: more than `MAX_HEADERS_BYTES` together.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise EncodeError(f"headers must be a mapping, not {type(headers).__name__}")
    given = dict(cast("Mapping[str, object]", headers))
    size = sum(_header_bytes(name, value) for name, value in given.items())
    if size > MAX_HEADERS_BYTES:
        raise MessageTooLargeError("the set of headers", size, MAX_HEADERS_BYTES)
    return given


def _header_bytes(name: object, value: object) -> int:
    if not isinstance(name, str) or not name:
        raise EncodeError(f"header name {name!r} must be a non-empty string")
    if name.lower().startswith(RESERVED_HEADERS):
        raise EncodeError(f"header {name!r}: names starting with 'ck-' or 'x-' are reserved")
    if name in ROUTING_HEADERS:
        raise EncodeError(f"header {name!r} is reserved: RabbitMQ routes by it")
    try:
        name_bytes = len(name.encode())
        value_bytes = len(value.encode()) if isinstance(value, str) else 8
    except UnicodeEncodeError as exc:
        raise EncodeError(f"header {name!r} is not valid Unicode") from exc
    if name_bytes > MAX_HEADER_NAME_BYTES:
        raise EncodeError(
            f"header name {name[:40]!r}… is longer than {MAX_HEADER_NAME_BYTES} bytes"
        )
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise EncodeError(f"header {name!r}: the integer does not fit 64 bits")
    if not isinstance(value, str | int | bool | None):
        kind = type(value).__name__
        raise EncodeError(f"header {name!r} is {kind}; str, int, bool and None can travel")
    return name_bytes + value_bytes
