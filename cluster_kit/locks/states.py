"""What becomes of a lock that was acquired."""

from __future__ import annotations

import enum


class LeaseState(enum.Enum):
    """What a lease is at the moment."""

    HELD = "held"
    SUSPECT = "suspect"
    """The last renewal failed; the lock is ours for some more seconds."""

    LOST = "lost"
    RELEASED = "released"
