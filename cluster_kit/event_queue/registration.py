"""A subscription as the user declared it. It outlives connections and restarts."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.checks import MAX_PREFETCH, whole_number
from cluster_kit.errors import AlreadySubscribedError, ConfigurationError, InvalidNameError
from cluster_kit.event_queue.outcome import Judge
from cluster_kit.event_queue.publishing import check_max_retries, check_timeout
from cluster_kit.event_queue.surroundings import Options
from cluster_kit.names import check_topic
from cluster_kit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster_kit.clock import Duration
    from cluster_kit.handler import Handler
    from cluster_kit.names import QueueName
    from cluster_kit.settings import EventQueueSettings
    from cluster_kit.signature import Process

log = logging.getLogger(__name__)


class Registration(NamedTuple):
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


class Registrations:
    """The subscriptions of one instance, one for each queue."""

    def __init__(self) -> None:
        self._by_queue: dict[QueueName, Registration] = {}

    def __iter__(self) -> Iterator[Registration]:
        """Go through those there are now, whatever becomes of them meanwhile."""
        return iter(tuple(self._by_queue.values()))

    def __contains__(self, registration: Registration) -> bool:
        """Whether it is this very one that is in force."""
        return self._by_queue.get(registration.queue) is registration

    def check(self, queue: QueueName, process: Process) -> None:
        """Check that no other function runs the tasks of this queue.

        Raises:
            AlreadySubscribedError: one does, or the queue is known by another name.
        """
        known = next((r for r in self if r.queue.full == queue.full), None)
        if known is not None and (known.queue, known.handler.process) != (queue, process):
            taken = f"{_qualified(known.handler.process)} (as {known.queue.channel!r})"
            if known.queue == queue:
                taken = _qualified(known.handler.process)
            raise AlreadySubscribedError(queue.channel, taken, _qualified(process))

    def add(self, registration: Registration) -> bool:
        """Put one in force, unless its function is subscribed already: then False."""
        known = self._by_queue.setdefault(registration.queue, registration)
        if known is not registration and not known.is_like(registration):
            text = "%s keeps the options of its first subscription; unsubscribe it to change them"
            log.warning(text, registration.queue.channel)
        return known is registration

    def remove(self, queue: QueueName) -> None:
        """Forget the one of a queue, if there is one."""
        self._by_queue.pop(queue, None)


def _qualified(process: Process) -> str:
    """Return module and name of a handler; of what has none, those of its class."""
    named: object = process if hasattr(process, "__qualname__") else type(process)
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', '?')}"


def make_judge(settings: EventQueueSettings, retry: object, instance_id: str) -> Judge:
    """Return what decides by a retry policy, None for that of the settings.

    Raises:
        ConfigurationError: it is none.
    """
    if retry is None:
        return Judge(policy=settings.retry.policy(), instance_id=instance_id)
    if isinstance(retry, RetryPolicy):
        return Judge(policy=retry, instance_id=instance_id)
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


def check_serves(topic: object) -> str | None:
    """Return the topic of a subscription, or none, if it is legal.

    Raises:
        InvalidNameError: it is not.
    """
    try:
        return None if topic is None else check_topic(topic)
    except InvalidNameError as exc:
        raise InvalidNameError("topic in serves", topic, exc.reason) from None
