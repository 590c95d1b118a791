"""What the library reports about itself.

An observer is called with the event's name and its fields; it must be quick and is never allowed
to harm what it observes. `EVENTS` is the complete list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction

from cluster_kit.checks import takes
from cluster_kit.errors import ConfigurationError

log = logging.getLogger(__name__)

Observer = Callable[[str, Mapping[str, object]], None]

EVENTS: Mapping[str, tuple[str, ...]] = {
    # event queue; channel is the name without prefix, times are seconds
    "task.published": ("channel", "id", "delay"),
    "task.started": ("channel", "id", "attempt", "redelivered"),
    "task.done": ("channel", "id", "attempt", "seconds"),
    "task.retried": ("channel", "id", "attempt", "delay", "error"),
    "task.snoozed": ("channel", "id", "delay"),
    "task.dead": ("channel", "id", "attempt", "reason", "error"),
    "task.given_back": ("channel", "id", "why"),
    "task.stuck": ("channel", "id", "attempt", "seconds"),
    "task.ack_lost": ("channel", "id"),
    "task.ack_remembered": ("channel", "id"),
    "task.renewed": ("channel", "id"),
    # broadcasts; kind is pubsub or sync, subscription is the channel or pattern subscribed
    "broadcast.published": ("kind", "channel", "id", "transport"),
    "broadcast.delivered": ("kind", "channel", "id", "subscription", "seconds"),
    "broadcast.failed": ("kind", "channel", "id", "subscription", "error"),
    "broadcast.dropped": ("kind", "channel", "id", "subscription"),
    "broadcast.repeated": ("kind", "channel", "id", "subscription"),
    "broadcast.malformed": ("kind", "channel", "id", "subscription"),
    "broadcast.twin": ("kind", "channel", "id", "subscription"),
    "broadcast.gap": ("kind", "channel", "subscription", "reason"),
    # locks; key is the name without prefix, times are seconds
    "lock.acquired": ("key", "fence", "seconds"),
    "lock.refused": ("key", "seconds", "error"),
    "lock.suspect": ("key", "fence", "error"),
    "lock.lost": ("key", "fence", "reason"),
    "lock.released": ("key", "fence", "seconds"),
    # caches; keys and tags are how many were invalidated
    "cache.loaded": ("cache", "key", "seconds"),
    "cache.load_failed": ("cache", "key", "error", "stale"),
    "cache.refused": ("cache", "key"),
    "cache.invalidated": ("cache", "keys", "tags", "everything", "stored", "told"),
    "cache.corrupt": ("cache", "key"),
    "cache.unavailable": ("cache", "reason"),
    "cache.gap": ("cache", "reason"),
    "cache.linked": ("cache", "live"),
    # published with transaction=; kind is task, sync or cache
    "commit.unpublished": ("kind", "channel", "id", "error"),
    # outbox and inbox; kind is task, sync or pubsub, oldest and lag are seconds
    "outbox.sent": ("kind", "channel", "id", "key", "seconds"),
    "outbox.retried": ("kind", "channel", "id", "key", "attempt", "delay", "error"),
    "outbox.failed": ("kind", "channel", "id", "key", "attempt", "unconfirmed", "error"),
    "outbox.depth": ("pending", "failed", "oldest", "lag"),
    "outbox.database_lost": ("error",),
    "outbox.database_back": (),
    "inbox.repeated": ("consumer", "id"),
    "inbox.pruned": ("count",),
    # adapters
    "connection.up": ("adapter", "purpose", "url"),
    "connection.lost": ("adapter", "purpose", "reason"),
    "connection.blocked": ("adapter", "purpose", "reason"),
    "connection.unblocked": ("adapter", "purpose"),
    "consumer.started": ("adapter", "queue"),
    "consumer.lost": ("adapter", "queue", "reason"),
    # lifecycle
    "cluster.started": ("app", "instance_id"),
    "cluster.stopped": ("app", "instance_id", "unfinished"),
}
"""Every event with its fields."""


class Telemetry:
    """Hands events to observers.

    Attributes:
        heard: whether anybody listens.
    """

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self.heard: bool = False
        self._failed: dict[tuple[int, type[Exception]], int] = {}  # so often, by observer and error

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(event, fields)` for every event; return what undoes it.

        Raises:
            ConfigurationError: `observer` cannot be called so, or is async.
        """
        takes("a telemetry observer", observer, "event", "fields")
        if iscoroutinefunction(observer):
            raise ConfigurationError("a telemetry observer is called, not awaited")
        self._observers.append(observer)
        self.heard = True
        return partial(self._forget, observer)

    def _forget(self, observer: Observer) -> None:
        if observer in self._observers:
            self._observers.remove(observer)
            kept = {id(other) for other in self._observers}
            self._failed = {key: times for key, times in self._failed.items() if key[0] in kept}
        self.heard = bool(self._observers)

    def emit(self, event: str, /, **fields: object) -> None:
        """Report `event`. An observer that raises is logged and the others still hear of it.

        The first error of each kind has its traceback, the 10th, 100th and so on one line.
        """
        for observer in tuple(self._observers):
            try:
                observer(event, fields)
            except Exception as exc:  # noqa: BLE001 - whatever it is, and it is logged
                self._note(observer, event, exc)

    def _note(self, observer: Observer, event: str, error: Exception) -> None:
        key = id(observer), type(error)
        times = self._failed[key] = self._failed.get(key, 0) + 1
        if times == 1:
            log.error("telemetry observer failed on %s", event, exc_info=error)
        elif str(times).strip("0") == "1":
            text = "telemetry observer failed %d times with %s, now on %s: %s"
            log.error(text, times, type(error).__name__, event, error)
