"""Publishing a task in two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from cluster_kit.event_queue.publishing import PublishOptions
from cluster_kit.ports import BatchOptions, TaskOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster_kit.event_queue.publishing import Publisher
    from cluster_kit.event_queue.surroundings import Surroundings
    from cluster_kit.message import Envelope


class Outlet:
    """The `TaskOutlet` of an event queue.

    Args:
        publisher: makes and sends its tasks.
        around: what there is while the cluster runs, or `NotStartedError`.
    """

    def __init__(self, publisher: Publisher, around: Callable[[], Surroundings]) -> None:
        self._publisher = publisher
        self._around = around

    def prepare(
        self, channel: str, payload: object, **options: Unpack[TaskOptions]
    ) -> tuple[Envelope, float]:
        """Return a task and the seconds it is to be delayed; see `TaskOutlet.prepare`."""
        checked = _checked("prepare", options, TaskOptions.__optional_keys__)
        queue = self._publisher.queue(channel, shared=options.get("shared", False))
        made = self._publisher.envelope(queue, payload, checked, options.get("message_id"))
        return made, checked.delay

    def prepare_many(
        self, channel: str, payloads: Iterable[object], **options: Unpack[BatchOptions]
    ) -> tuple[list[Envelope], float]:
        """Return many tasks and the seconds they are to be delayed."""
        checked = _checked("prepare_many", options, BatchOptions.__optional_keys__)
        queue = self._publisher.queue(channel, shared=options.get("shared", False))
        return self._publisher.envelopes(queue, payloads, checked), checked.delay

    async def send(self, envelope: Envelope, delay: float) -> str:
        """Store a task and return its id. Raises as `EventQueue.publish`."""
        return await self._publisher.send(envelope, delay, self._around())


def _checked(method: str, options: BatchOptions, known: frozenset[str]) -> PublishOptions:
    """Return the options, or raise as `PublishOptions.check` and, for an unknown one, as Python."""
    for name in options:
        if name not in known:
            text = f"{method}() got an unexpected keyword argument {name!r}, it takes "
            raise TypeError(text + ", ".join(sorted(known)))
    return PublishOptions.check(
        timeout=options.get("timeout"),
        max_retries=options.get("max_retries"),
        delay=options.get("delay"),
        ttl=options.get("ttl"),
        headers=options.get("headers"),
    )
