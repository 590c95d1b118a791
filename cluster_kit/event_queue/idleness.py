"""Whether a channel may take a task, as the user's function has it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster_kit.event_queue.outcome import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.clock import Clock

log = logging.getLogger(__name__)

SILENCE = 300.0
"""Seconds between two lines of the log about one function that fails: it is asked very often."""


class Idleness:
    """Asks `idle` of one channel; where it fails, that counts as no.

    Args:
        channel: for the log.
        idle: None where there is nobody to ask, and the answer is yes.
        clock: of the log's silence.
    """

    def __init__(self, channel: str, idle: Callable[[], bool] | None, clock: Clock) -> None:
        self._channel = channel
        self._idle = idle
        self._clock = clock
        self._untold = 0
        self._told_at: float | None = None

    def allows(self) -> bool:
        """Return the answer."""
        if self._idle is None:
            return True
        try:
            return bool(self._idle())
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - sys.exit() in it must not end the consumer
            self._failed(exc)
            return False

    def _failed(self, error: BaseException) -> None:
        now = self._clock.monotonic()
        if self._told_at is None:
            text = "idle() of channel %s failed and counts as false"
            log.error(text, self._channel, exc_info=error)
        elif now - self._told_at < SILENCE:
            self._untold += 1
            return
        else:
            text = "idle() of channel %s failed %d times more in %.3g s: %s"
            log.error(
                text, self._channel, self._untold + 1, now - self._told_at, in_one_line(error)
            )
        self._told_at, self._untold = now, 0
