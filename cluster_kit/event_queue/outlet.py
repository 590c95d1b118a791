"""Publishing a task in two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.event_queue.publishing import PublishOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster_kit.clock import Duration
    from cluster_kit.event_queue.publishing import Publisher
    from cluster_kit.event_queue.worker import Surroundings
    from cluster_kit.message import Envelope, Headers


class Outlet:
    """The `TaskOutlet` of an event queue.

    Args:
        publisher: makes and sends its tasks.
        around: what there is while the cluster runs, or `NotStartedError`.
    """

    def __init__(self, publisher: Publisher, around: Callable[[], Surroundings]) -> None:
        self._publisher = publisher
        self._around = around

    def prepare(  # noqa: PLR0913 - the options of a publish
        self,
        channel: str,
        payload: object,
        *,
        timeout: Duration | None = None,
        max_retries: int | None = None,
        delay: Duration | None = None,
        ttl: Duration | None = None,
        message_id: str | None = None,
        headers: Headers | None = None,
        shared: bool = False,
    ) -> tuple[Envelope, float]:
        """Return a task and the seconds it is to be delayed; see `TaskOutlet.prepare`."""
        options = PublishOptions.check(
            timeout=timeout, max_retries=max_retries, delay=delay, ttl=ttl, headers=headers
        )
        queue = self._publisher.queue(channel, shared=shared)
        return self._publisher.envelope(queue, payload, options, message_id), options.delay

    def prepare_many(  # noqa: PLR0913 - the options of a publish_many
        self,
        channel: str,
        payloads: Iterable[object],
        *,
        timeout: Duration | None = None,
        max_retries: int | None = None,
        delay: Duration | None = None,
        ttl: Duration | None = None,
        headers: Headers | None = None,
        shared: bool = False,
    ) -> tuple[list[Envelope], float]:
        """Return many tasks and the seconds they are to be delayed."""
        options = PublishOptions.check(
            timeout=timeout, max_retries=max_retries, delay=delay, ttl=ttl, headers=headers
        )
        queue = self._publisher.queue(channel, shared=shared)
        return self._publisher.envelopes(queue, payloads, options), options.delay

    async def send(self, envelope: Envelope, delay: float) -> str:
        """Store a task and return its id. Raises as `EventQueue.publish`."""
        return await self._publisher.send(envelope, delay, self._around())
