"""What is wrong now, collected from the parts of the adapter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cluster_kit.ports import Health, HealthStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster_kit.clock import Clock

_WORST_FIRST: tuple[HealthStatus, ...] = ("down", "degraded")


class Problems:
    """Known problems by the part that has them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Health] = {}
        self._ends: dict[str, float] = {}
        self._latest = self._well_since = clock.wall()
        self._ended: dict[str, float] = {}

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return bool(self._known)

    def report(
        self, part: str, status: HealthStatus, detail: str, *, lasts: float = math.inf
    ) -> None:
        """`part` has a problem, for `lasts` seconds. A status that stays keeps its `since`."""
        self._ends[part] = self._clock.monotonic() + lasts
        before = self._known.get(part)
        same = before is not None and before.status == status
        since = before.since if before is not None and same else self._clock.wall()
        self._known[part] = Health(status=status, detail=detail, since=since)

    def clear(self, part: str) -> None:
        """`part` is well."""
        if self._known.pop(part, None) is not None:
            now = self._ended[part] = self.later()
            self._well_since = self._well_since if self._known else now

    def later(self) -> float:
        """Return the time, or one after all that were returned, where the clock was set back."""
        self._latest = max(self._clock.wall(), math.nextafter(self._latest, math.inf))
        return self._latest

    def well_since(self, parts: Collection[str]) -> float | None:
        """Return since when none of these has a problem, 0 for ever; None while one has."""
        if any(part in self._known for part in parts):
            return None
        return max(self._ended.get(part, 0.0) for part in parts)

    def health(self, fine: str) -> Health:
        """Return the worst there is, with the details of all that are as bad."""
        now = self._clock.monotonic()
        for part in [part for part in self._known if self._ends[part] <= now]:
            self.clear(part)
        for status in _WORST_FIRST:
            found = [problem for problem in self._known.values() if problem.status == status]
            if found:
                detail = "; ".join(dict.fromkeys(problem.detail for problem in found))
                since = min(problem.since for problem in found)
                return Health(status=status, detail=detail, since=since)
        return Health(status="ok", detail=fine, since=self._well_since)
