"""What every adapter is given, and how it says how it is."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from cluster_kit.clock import SystemClock

if TYPE_CHECKING:
    import asyncio

    from cluster_kit.clock import Clock

HealthStatus = Literal["ok", "degraded", "down"]


class TaskSpawner(Protocol):
    """The supervisor, as an adapter sees it. Nothing else may start a task."""

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start `work` in the background; an exception that ends it is logged, never lost."""
        ...


class Emit(Protocol):
    """Reports an event of the table in `cluster_kit.telemetry`."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Report `event`. Never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastLimits:
    """How long and how much a broker keeps of broadcasts.

    Attributes:
        sticky_expires: seconds what is kept for an instance outlives its absence.
        sticky_max_messages: most messages kept for an instance; beyond them the oldest go.
        stream_max_age: seconds a stream keeps messages.
        stream_max_bytes: of a stream; beyond them the oldest messages go.
        stream_segment_bytes: of a part of a stream, which goes as a whole.
    """

    sticky_expires: float = 120.0
    sticky_max_messages: int = 10_000
    stream_max_age: float = 3600.0
    stream_max_bytes: int = 1_000_000_000
    stream_segment_bytes: int = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterContext:
    """What an adapter is given at its making.

    Attributes:
        app: name of the application.
        instance_id: of this process's cluster object; appears at the broker and in messages.
        tasks: starts background work.
        emit: reports telemetry.
        clock: tells the time.
        random: for jitter.
        connect_timeout: seconds for a first connection, all hosts together.
        crash_limit: redeliveries without outcome a task may have; the service dead-letters
            beyond it, and a broker-side net beyond `delivery_limit`.
        broadcasts: what may be kept of broadcasts.
    """

    app: str
    instance_id: str
    tasks: TaskSpawner
    emit: Emit
    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.Random)
    connect_timeout: float = 10.0
    crash_limit: int = 10
    broadcasts: BroadcastLimits = field(default_factory=BroadcastLimits)


_LEAST_DELIVERY_LIMIT = 20
_ABOVE_CRASH_LIMIT = 10  # it is the last net, not the rule


def delivery_limit(crash_limit: int) -> int:
    """Return the deliveries without outcome after which a broker gives a task up by itself."""
    return max(_LEAST_DELIVERY_LIMIT, crash_limit + _ABOVE_CRASH_LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """State of an adapter. `since` is in seconds since 1970."""

    status: HealthStatus
    detail: str
    since: float


class AdapterHealth(TypedDict):
    """A `Health` as `Cluster.health` shows it. `since` is ISO 8601."""

    status: HealthStatus
    detail: str
    since: str


class ClusterHealth(TypedDict):
    """What `Cluster.health` returns; `adapters` is by capability."""

    status: HealthStatus
    ready: bool
    adapters: dict[str, AdapterHealth]
