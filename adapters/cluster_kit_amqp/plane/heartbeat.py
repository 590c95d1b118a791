"""Heartbeats: a peer that says nothing for long is gone (4.2.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster_kit_amqp.plane.frames import HEARTBEAT, frame

BEAT = frame(HEARTBEAT, 0, b"")
_MOST_SILENT_LOOKS = 3


class Heartbeat:
    """Sends and expects a sign of life.

    It looks twice in every interval, and counts looks, not seconds: an event loop that was busy
    for long comes late to the look and to the bytes that arrived meanwhile, and has read them by
    the next. A peer is gone after three looks in a row that found nothing new, which is less than
    two intervals after its last byte.

    Args:
        interval: seconds, as agreed with the peer.
        send: sends a frame.
        lost: called once with the reason when the peer is gone.

    Attributes:
        interval: seconds.
    """

    def __init__(
        self, interval: int, send: Callable[[bytes], None], lost: Callable[[str], None]
    ) -> None:
        self._send, self._lost = send, lost
        self.interval: int = interval
        self._loop = asyncio.get_running_loop()
        self._heard = self._spoke = True
        self._silent = 0
        self._timer = self._loop.call_later(interval / 2, self._look)

    def heard(self) -> None:
        """Something came."""
        self._heard = True

    def spoke(self) -> None:
        """Something was sent."""
        self._spoke = True

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        self._silent = 0 if self._heard else self._silent + 1
        if self._silent >= _MOST_SILENT_LOOKS:
            self._lost(f"the peer sent nothing for {self._silent * self.interval / 2:g} s")
            return
        if not self._spoke:
            self._send(BEAT)
        self._heard = self._spoke = False
        self._timer = self._loop.call_later(self.interval / 2, self._look)
