"""What a subscription is given: its options, and what all of an instance share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.deadlines import Deadlines
    from cluster_kit.event_queue.ledger import Ledger
    from cluster_kit.event_queue.quarantine import Quarantine
    from cluster_kit.event_queue.settlement import Settler
    from cluster_kit.ports import Emit, EventQueueAdapter
    from cluster_kit.supervisor import Supervisor


class Options(NamedTuple):
    """Options of a subscription; durations in seconds, defaults already filled in."""

    concurrency: int
    timeout: float
    max_retries: int
    crash_limit: int
    cancel_grace: float
    idle: Callable[[], bool] | None


class Surroundings(NamedTuple):
    """What every subscription of an instance shares while it is connected."""

    adapter: EventQueueAdapter
    ledger: Ledger
    quarantine: Quarantine
    settler: Settler
    supervisor: Supervisor
    clock: Clock
    report: Emit
    deadlines: Deadlines
