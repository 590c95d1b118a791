"""A subscription as the user declared it. It outlives connections and restarts."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

from cluster_kit.checks import MAX_PREFETCH, whole_number
from cluster_kit.errors import ConfigurationError
from cluster_kit.event_queue.publishing import check_max_retries, check_timeout
from cluster_kit.event_queue.worker import Options
from cluster_kit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.clock import Duration
    from cluster_kit.event_queue.outcome import Judge
    from cluster_kit.handler import Handler
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

    def is_like(self, other: Registration) -> bool:
        """Whether `other`, of the same function, has the same options."""
        mine = self.judge, self.options, self.serves
        return mine == (other.judge, other.options, other.serves)


def check_policy(retry: object) -> RetryPolicy:
    """Return a retry policy, or raise `ConfigurationError`."""
    if isinstance(retry, RetryPolicy):
        return retry
    raise ConfigurationError(f"retry must be a RetryPolicy, not {type(retry).__name__}")


def _check_idle(idle: object) -> None:
    if idle is not None and (not callable(idle) or iscoroutinefunction(idle)):
        raise ConfigurationError("idle must be a plain function without arguments")


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
    _check_idle(idle)
    concurrency = whole_number("concurrency", concurrency, most=MAX_PREFETCH)
    retries = check_max_retries(max_retries)
    return Options(
        concurrency=concurrency or settings.max_in_flight,
        timeout=check_timeout(timeout) or settings.timeout,
        max_retries=settings.max_retries if retries is None else retries,
        crash_limit=settings.crash_limit,
        cancel_grace=settings.cancel_grace,
        idle=idle,
    )
