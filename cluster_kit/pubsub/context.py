"""What every subscription of an instance shares while it is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.clock import Clock
    from cluster_kit.ports import Emit
    from cluster_kit.supervisor import Supervisor

    OnGap = Callable[[list[str]], object]


class PubSubContext(NamedTuple):
    """Means and limits of subscriptions.

    Attributes:
        kind: the realm, for telemetry and for the names of tasks.
        buffer_size: most messages that wait in one subscription.
        report: counts and tells what happens.
    """

    kind: str
    supervisor: Supervisor
    clock: Clock
    report: Emit
    buffer_size: int


class Options(NamedTuple):
    """Options of a subscription; durations in seconds.

    Attributes:
        debounce: how long equal payloads must have ceased to come; 0 hands over each.
        max_wait: bound of that, from the first of them on; None for none.
        on_gap: told when messages may be missing.
    """

    debounce: float = 0.0
    max_wait: float | None = None
    on_gap: OnGap | None = None
