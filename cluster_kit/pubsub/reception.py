"""From what arrives to the subscriptions it is for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster_kit.broadcast import Audience
from cluster_kit.clock import utc
from cluster_kit.patterns import matches
from cluster_kit.pubsub.following import REPEATED, Follower
from cluster_kit.pubsub.gaps import Told
from cluster_kit.pubsub.twins import Twins

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster_kit.broadcast import Binding, Broadcast, Transport
    from cluster_kit.pubsub.context import PubSubContext
    from cluster_kit.pubsub.lane import Lane
    from cluster_kit.pubsub.transports import Transports

log = logging.getLogger(__name__)

MAX_ROUTES = 10_000
"""Channels whose subscriptions are remembered."""


class Reception:
    """The `Listener` of one realm: routes messages, finds repeats and holes.

    Args:
        transports: of the channels.
        twins: knows this instance's own messages.
        around: what the subscriptions share.
    """

    def __init__(self, transports: Transports, twins: Twins, around: PubSubContext) -> None:
        self._transports = transports
        self._twins = twins
        self._around = around
        self._follower = Follower()
        self._lanes: list[Lane] = []
        self._routes: dict[str, tuple[Lane, ...]] = {}
        self._told: dict[tuple[str, Transport], Told] = {}  # the last gap of each binding

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
            self._told = {
                binding: told
                for binding, told in self._told.items()
                if any(lane.name == binding[0] for lane in self._lanes)
            }

    def received(self, message: Broadcast) -> None:
        """Hand a message to all subscriptions it is for; see `Listener.received`."""
        lanes = self._lanes_of(message.channel)
        if not lanes:
            return
        if message.malformed:
            self._report_each("broadcast.malformed", message, lanes)
        if self._twins.notice(message):
            self._report_each("broadcast.twin", message, lanes[:1])
        missing = self._follower.missing(message)
        if missing == REPEATED:
            self._report_each("broadcast.repeated", message, lanes)
            return
        if missing:
            self._tell_of(missing, message, lanes)
        if self._is_for_us(message):
            for lane in lanes:
                lane.offer(message)

    def gap(self, bindings: Collection[Binding], since: float, reason: str) -> None:
        """Have the subscriptions concerned told; see `Listener.gap`."""
        patterns = {binding.pattern for binding in bindings}
        text = f"{reason}, since {utc(since).isoformat(timespec='seconds')}"
        names = patterns.intersection(lane.name for lane in self._lanes)
        told = {name: Told() for name in names}
        for lane in self._lanes:
            if lane.name in names:
                lane.note_gap([lane.name], text, told[lane.name])
        self._told.update(
            {(b.pattern, b.transport): told[b.pattern] for b in bindings if b.pattern in names}
        )

    def _tell_of(self, missing: int, message: Broadcast, lanes: tuple[Lane, ...]) -> None:
        """Tell of a hole whomever no gap has been told that explains it.

        The last of what is missing was sent `after` seconds before this message. What loads anew
        because of a gap that was told later has its effect.
        """
        sent = self._around.clock.monotonic() - message.after
        transport = self._transports.of(message.channel)
        sender = message.sender or message.origin
        reason = f"{missing} of the messages of instance {sender} did not arrive"
        untold = [
            lane
            for lane in lanes
            if lane.should_have(sent) and self._is_untold(lane, transport, sent)
        ]
        for lane in untold:
            lane.note_gap([message.channel], reason)
        if untold:
            self._tell_others(transport, lanes, sent, f"on {message.channel} {reason}")

    def _tell_others(
        self, transport: Transport, lanes: tuple[Lane, ...], sent: float, reason: str
    ) -> None:
        """Tell of the hole who receives over the same transport, where the oldest are dropped.

        What was lost beside it may be the last of its channel, which no later number would show.
        """
        told: dict[str, Told] = {}
        for lane in self._lanes:
            if (
                lane not in lanes
                and self._transports.reach(lane.name, transport)
                and self._is_untold(lane, transport, sent)
            ):
                lane.note_gap([lane.name], reason, told.setdefault(lane.name, Told()))
        self._told.update({(name, transport): one for name, one in told.items()})

    def _is_untold(self, lane: Lane, transport: Transport, sent: float) -> bool:
        told = self._told.get((lane.name, transport))
        return lane.bound_at < sent and (told is None or told.at < sent)

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
        return self._twins.is_own(message) is (message.audience is Audience.SELF)

    def _report_each(self, event: str, message: Broadcast, lanes: tuple[Lane, ...]) -> None:
        for lane in lanes:
            self._around.report(
                event,
                kind=self._around.kind,
                channel=message.channel,
                id=message.id,
                subscription=lane.name,
            )
