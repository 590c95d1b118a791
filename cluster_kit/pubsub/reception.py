"""From what arrives to the subscriptions it is for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster_kit.broadcast import Audience
from cluster_kit.clock import utc
from cluster_kit.patterns import matches
from cluster_kit.pubsub.numbering import REPEATED, Follower

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster_kit.broadcast import Binding, Broadcast
    from cluster_kit.ports import Emit
    from cluster_kit.pubsub.lane import Lane
    from cluster_kit.pubsub.transports import Transports

log = logging.getLogger(__name__)

MAX_ROUTES = 10_000
"""Channels whose subscriptions are remembered."""


class Reception:
    """The `Listener` of one realm: routes messages, finds repeats and holes.

    Args:
        kind: the realm.
        instance_id: of this instance, by which it knows its own messages.
        transports: of the channels.
        report: tells telemetry.
    """

    def __init__(self, kind: str, instance_id: str, transports: Transports, report: Emit) -> None:
        self._kind = kind
        self._instance_id = instance_id
        self._transports = transports
        self._report = report
        self._follower = Follower()
        self._lanes: list[Lane] = []
        self._routes: dict[str, tuple[Lane, ...]] = {}

    def add(self, lane: Lane) -> None:
        """Route to `lane` what its name stands for."""
        self._lanes.append(lane)
        self._routes.clear()

    def remove(self, lane: Lane) -> None:
        """Route nothing to `lane` any more."""
        if lane in self._lanes:
            self._lanes.remove(lane)
            self._routes.clear()
            self._follower.keep(self._is_wanted)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All there are."""
        return tuple(self._lanes)

    def received(self, message: Broadcast) -> None:
        """Hand a message to all subscriptions it is for; see `Listener.received`."""
        lanes = self._lanes_of(message.channel)
        if not lanes:
            return
        missing = self._follower.missing(message)
        if missing == REPEATED:
            self._report_repeated(message, lanes)
            return
        if missing:
            sender = message.sender or message.origin
            reason = f"{missing} of the messages of instance {sender} did not arrive"
            for lane in lanes:
                lane.note_gap([message.channel], reason)
        if self._is_for_us(message):
            for lane in lanes:
                lane.offer(message)

    def gap(self, bindings: Collection[Binding], since: float, reason: str) -> None:
        """Have the subscriptions concerned told; see `Listener.gap`."""
        patterns = {binding.pattern for binding in bindings}
        text = f"{reason}, since {utc(since).isoformat(timespec='seconds')}"
        for lane in self._lanes:
            if lane.name in patterns:
                lane.note_gap([lane.name], text)
        told = {(binding.pattern, binding.transport) for binding in bindings}

        def concerned(channel: str) -> bool:
            own = self._transports.of(channel)
            return any(own == transport and matches(name, channel) for name, transport in told)

        self._follower.excuse(concerned)

    def _lanes_of(self, channel: str) -> tuple[Lane, ...]:
        found = self._routes.get(channel)
        if found is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            found = tuple(lane for lane in self._lanes if matches(lane.name, channel))
            self._routes[channel] = found
        return found

    def _is_wanted(self, channel: str) -> bool:
        return bool(self._lanes_of(channel))

    def _is_for_us(self, message: Broadcast) -> bool:
        if message.audience is Audience.ALL:
            return True
        own = message.origin == self._instance_id
        return own is (message.audience is Audience.SELF)

    def _report_repeated(self, message: Broadcast, lanes: tuple[Lane, ...]) -> None:
        for lane in lanes:
            self._report(
                "broadcast.repeated",
                kind=self._kind,
                channel=message.channel,
                id=message.id,
                subscription=lane.name,
            )
