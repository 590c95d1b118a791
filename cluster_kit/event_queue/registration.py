"""A subscription as the user declared it. It outlives connections and restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.checks import whole_number
from cluster_kit.event_queue.publishing import check_max_retries, check_timeout
from cluster_kit.event_queue.worker import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.clock import Duration
    from cluster_kit.event_queue.handler import Handler
    from cluster_kit.event_queue.outcome import Judge
    from cluster_kit.names import QueueName
    from cluster_kit.settings import EventQueueSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Which handler runs the tasks of which queue, and how. `serves` is a worker-mode topic."""

    queue: QueueName
    handler: Handler
    judge: Judge
    options: Options
    serves: str | None


def check_options(
    settings: EventQueueSettings,
    *,
    concurrency: int,
    idle: Callable[[], bool] | None,
    timeout: Duration | None,
    max_retries: int | None,
) -> Options:
    """Return a subscription's options with the settings' defaults filled in.

    Raises:
        ConfigurationError: an option is wrong; the text names it.
    """
    concurrency = whole_number("concurrency", concurrency)
    retries = check_max_retries(max_retries)
    return Options(
        concurrency=concurrency or settings.max_in_flight,
        timeout=check_timeout(timeout) or settings.timeout,
        max_retries=settings.max_retries if retries is None else retries,
        crash_limit=settings.crash_limit,
        cancel_grace=settings.cancel_grace,
        idle=idle,
    )
