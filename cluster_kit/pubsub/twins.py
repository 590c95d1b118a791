"""Notices another living process that has this one's instance id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster_kit.pubsub.numbering import incarnation_of

if TYPE_CHECKING:
    from cluster_kit.broadcast import Broadcast
    from cluster_kit.clock import Clock
    from cluster_kit.pubsub.numbering import Numbering

log = logging.getLogger(__name__)

MEMORY = 300.0
"""Seconds a twin counts as living after its last message."""


class Twins:
    """Knows this process by its instance id and by the epochs of its numbers.

    Args:
        numbering: of what it sends.
        clock: tells the time.
    """

    def __init__(self, numbering: Numbering, clock: Clock) -> None:
        self._instance_id = numbering.instance_id
        self._incarnation = numbering.incarnation
        self._clock = clock
        self._began = clock.wall()
        self._seen_at: float | None = None

    def is_own(self, message: Broadcast) -> bool:
        """Whether this process published a message.

        What another instance sent on behalf of this one is known by the instance id alone.
        """
        if message.origin != self._instance_id:
            return False
        numbered_here = incarnation_of(message.epoch) in {"", self._incarnation}
        return bool(message.sender) or numbered_here

    def notice(self, message: Broadcast) -> bool:
        """Return whether a message is news of a twin; it is logged then.

        What was published before this process began may be of a former one.
        """
        if (message.sender or message.origin) != self._instance_id:
            return False
        if incarnation_of(message.epoch) in {"", self._incarnation}:
            return False
        if message.published_at is None or message.published_at <= self._began:
            return False
        known = self.trouble is not None
        self._seen_at = self._clock.monotonic()
        if not known:
            log.warning("%s: its message %s on %s", self.trouble, message.id, message.channel)
        return not known

    @property
    def trouble(self) -> str | None:
        """What is wrong; None while no twin is known."""
        if self._seen_at is None or self._clock.monotonic() - self._seen_at > MEMORY:
            return None
        return (
            f"another living process has instance id {self._instance_id!r} too; give each its "
            "own, or leave it out"
        )
