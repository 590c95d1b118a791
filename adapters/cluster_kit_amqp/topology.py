"""What there is on the broker, as data: names, arguments, order of making.

::

    publish ──> {app}.tasks ── channel ──┐
                (ck.v1.shared for shared)│
    ck.v1.back ──────── full name ───────┼──> {app}.{channel} ── expired, delivered too often ─┐
    ck.v1.delay.deliver ─ address ───────┘                                                     │
    bury ─────────────────────────────────> ck.v1.dead ── full name ──> {app}.{channel}.dead <─┘

A queue's arguments follow from its full name and the crash limit alone, so that applications
which share a queue agree on them (as long as their crash limits are the same).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from cluster_kit.errors import InvalidNameError, TopologyError
from cluster_kit.ports import delivery_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.names import QueueName

ExchangeKind = Literal["direct", "fanout", "topic"]
Arguments: TypeAlias = "Mapping[str, str | int]"

PREFIX = "ck.v1."
"""Of every helper's name. Arguments on a broker cannot change: new ones get a new version."""

BROKER_PREFIX = "amq."
"""Of names that only the broker may give."""

SHARED = "ck.v1.shared"
DEAD = "ck.v1.dead"
BACK = "ck.v1.back"
DELIVER = "ck.v1.delay.deliver"
DIRECTORY = "ck.v1.directory"
READER = "ck.v1.reader"
CHAIN_LEVELS = 25

NO_LIMIT = 2_000_000_000
"""Deliveries nobody reaches. RabbitMQ 3.10 takes -1, which later means no limit, for zero."""


class Exchange(NamedTuple):
    """A durable exchange."""

    name: str
    kind: ExchangeKind


class Queue(NamedTuple):
    """A durable queue."""

    name: str
    arguments: Arguments


class Binding(NamedTuple):
    """`source` routes `key` to a queue or an exchange."""

    target_kind: Literal["queue", "exchange"]
    target: str
    source: str
    key: str


Step = Exchange | Queue | Binding
Steps = tuple[Step, ...]


def check_app(app: str) -> None:
    """Refuse an application whose queues and exchanges would have names of the broker's own.

    Raises:
        InvalidNameError: they would begin with ``amq.``.
    """
    if f"{app}.".startswith(BROKER_PREFIX):
        reason = f"names that begin with {BROKER_PREFIX!r} are reserved by RabbitMQ for itself"
        raise InvalidNameError("app name", app, reason)


def check_queue_name(queue: QueueName) -> None:
    """Refuse the names of the broker's own queues, the others having been refused before.

    Raises:
        TopologyError: it begins with ``amq.``.
    """
    if queue.full.startswith(BROKER_PREFIX):
        reason = f"names that begin with {BROKER_PREFIX} are reserved by RabbitMQ for itself"
        raise TopologyError(f"queue {queue.full!r}", reason)


def work_exchange(queue: QueueName) -> str:
    """Return the exchange that routes a channel to its queue."""
    return SHARED if queue.app is None else f"{queue.app}.tasks"


def reader_queue(queue: str) -> str:
    """Return what stands for the turn of whoever reads the queue of this full name."""
    return f"{READER}.{hashlib.blake2s(queue.encode(), digest_size=16).hexdigest()}"


def address(queue: QueueName) -> str:
    """Return what stands for a queue in the delay chain: no dots, 32 characters.

    A dot would make a word of its own in a routing key, and the key must stay below 255 bytes.
    """
    return hashlib.blake2s(queue.full.encode(), digest_size=16).hexdigest()


def chain_key(queue: QueueName) -> str:
    """Return the binding key of a queue at the end of the delay chain.

    Every level is spelled out: ``#.address`` would match longer addresses with the same end.
    """
    return "*." * CHAIN_LEVELS + address(queue)


def quorum(*, limit: int, **more: str | int) -> Arguments:
    """Return the arguments of a quorum queue that refuses rather than drops."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": limit,
        "x-overflow": "reject-publish",
        **{f"x-{name.replace('_', '-')}": value for name, value in more.items()},
    }


def work_steps(queue: QueueName, crash_limit: int) -> Steps:
    """Return what a channel needs, targets before sources.

    A dead letter whose target is missing would wait three minutes for the next attempt.
    """
    work = quorum(
        limit=delivery_limit(crash_limit),
        dead_letter_strategy="at-least-once",
        dead_letter_exchange=DEAD,
        dead_letter_routing_key=queue.full,
    )
    return (
        Exchange(DEAD, "direct"),
        Queue(queue.dead, quorum(limit=NO_LIMIT)),
        Binding("queue", queue.dead, DEAD, queue.full),
        Exchange(work_exchange(queue), "direct"),
        Exchange(BACK, "direct"),
        Exchange(DELIVER, "topic"),
        Queue(queue.full, work),
        Binding("queue", queue.full, BACK, queue.full),
        Binding("queue", queue.full, DELIVER, chain_key(queue)),
        Binding("queue", queue.full, work_exchange(queue), queue.channel),
    )


def directory_queue(app: str) -> str:
    """Return the queue that lists an application's channels, one message each."""
    return f"{DIRECTORY}.{app}"


def directory_steps(app: str) -> Steps:
    """Return what the list of channels needs."""
    name = directory_queue(app)
    return (
        Exchange(DIRECTORY, "direct"),
        Queue(name, quorum(limit=NO_LIMIT)),
        Binding("queue", name, DIRECTORY, app),
    )
