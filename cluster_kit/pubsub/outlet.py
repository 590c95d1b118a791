"""Publishing a message in two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.pubsub.publishing import check_audience

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.broadcast import Broadcast
    from cluster_kit.clock import Clock
    from cluster_kit.ports import PubSubAdapter
    from cluster_kit.pubsub.publishing import Publisher


class Outlet:
    """The `BroadcastOutlet` of a realm.

    Args:
        publisher: makes and sends its messages.
        adapter: returns the connected adapter, or raises why there is none.
        clock: tells when a message was made.
    """

    def __init__(
        self,
        publisher: Publisher,
        adapter: Callable[[], PubSubAdapter],
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._adapter = adapter
        self._clock = clock

    def prepare(
        self,
        channel: str,
        message: object,
        *,
        skip_self: bool | None = None,
        only_self: bool = False,
    ) -> Broadcast:
        """Return a message without a number; see `BroadcastOutlet.prepare`."""
        audience = check_audience(skip_self, only_self)
        return self._publisher.message(channel, message, audience, self._clock)

    async def send(self, broadcast: Broadcast) -> str:
        """Send a message and return its id. Raises as `PubSubManager.publish`."""
        await self._publisher.send(broadcast, self._adapter())
        return broadcast.id

    def check(self) -> None:
        """Raise why nothing could be sent now, if so."""
        self._adapter()
