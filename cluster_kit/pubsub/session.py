"""What a manager has while its adapter is connected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.loops import OwnLoop
from cluster_kit.pubsub.bindings import Bindings
from cluster_kit.pubsub.lane import Lane
from cluster_kit.pubsub.reception import Reception

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import PubSubAdapter
    from cluster_kit.pubsub.context import PubSubContext
    from cluster_kit.pubsub.subscription import Registration
    from cluster_kit.pubsub.transports import Transports
    from cluster_kit.pubsub.twins import Twins


class Session:
    """An adapter in use: leads what it receives to the lanes of registrations.

    Args:
        adapter: connected.
        around: what the lanes share.
        transports: of the channels.
        twins: knows this instance's own messages.
        wanted: returns what is to be received now.

    Attributes:
        adapter: as given.
        twins: as given.
        loop: where it may be used.
    """

    def __init__(
        self,
        adapter: PubSubAdapter,
        around: PubSubContext,
        transports: Transports,
        twins: Twins,
        wanted: Callable[[], Iterable[Binding]],
    ) -> None:
        self.adapter = adapter
        self.twins = twins
        self._around = around
        self._transports = transports
        self.loop = OwnLoop(around.kind)
        self._reception = Reception(transports, twins, around)
        self._bindings = Bindings(adapter, wanted)
        self._released = False
        adapter.listen(around.kind, self._reception)

    def enter(self, registration: Registration) -> None:
        """Give it a lane; held back until `release`, as all are."""
        lane = Lane(registration.name, registration.handler, registration.options, self._around)
        registration.lane = lane
        self._reception.add(lane)
        if self._released:
            lane.release()

    def leave(self, registration: Registration) -> Lane | None:
        """Take its lane away, and return it: shut, yet to be closed."""
        lane, registration.lane = registration.lane, None
        if lane is not None:
            registration.left = lane
            lane.shut()
            self._reception.remove(lane)
        return lane

    def release(self, lanes: Iterable[Lane]) -> None:
        """Call the handlers of these from now on, and of those that are entered later."""
        self._released = True
        for lane in lanes:
            lane.release()

    def linked_since(self, name: str) -> float | None:
        """Return since when all that it takes is linked; None while something is not."""
        latest = 0.0
        for binding in self._transports.bindings(self._around.kind, name):
            since = self.adapter.linked_since(binding)
            if since is None:
                return None
            latest = max(latest, since)
        return latest

    async def adjust(self, own: Collection[Binding]) -> None:
        """Receive what is wanted, and nothing else. Raises as `PubSubAdapter.bind`, of `own`."""
        await self._bindings.adjust(own)

    async def retract(self) -> None:
        """Receive no longer what is not wanted any more."""
        await self._bindings.retract()

    async def close(self, registrations: Iterable[Registration], grace: float) -> None:
        """Close all lanes: calls under way have `grace` seconds."""
        lanes = [lane for registration in registrations if (lane := self.leave(registration))]
        if lanes:
            closing = [partial(lane.close, grace) for lane in lanes]
            await self._around.supervisor.run_all(closing, limit=len(closing))
