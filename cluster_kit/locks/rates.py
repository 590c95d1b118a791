"""So often in a time, among all instances."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import ConfigurationError, LockTimeout, LockUnavailable
from cluster_kit.locks.line import Line
from cluster_kit.locks.terms import answer_timeout
from cluster_kit.names import new_id
from cluster_kit.ports import Quota

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.locks.contention import Contention
    from cluster_kit.ports import QuotaKeeper

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_SPREAD = 0.01  # seconds; instances that wait for the same moment do not all ask at once


class RateLimit:
    """Admits so many in any stretch of time, among all instances. Got from `LockManager`.

    The period slides: it is not that of a calendar, at whose turn twice as many could come.
    Within an instance those who wait are served in their order.
    """

    def __init__(
        self, key: str, limit: int, period: float, active: Callable[[], Contention], wait: float
    ) -> None:
        self.key: str = key
        self.limit: int = limit
        self.period: float = period
        self._active = active
        self._wait = wait
        self._line = Line()

    async def acquire(self, *, timeout: Duration | None = None) -> None:
        """Wait until one more is within the limit, and count it.

        Args:
            timeout: seconds to wait; 0 tries once; None is the setting ``locks.timeout``.

        Raises:
            LockTimeout: the limit was reached all the time.
            LockUnavailable: the server gave no usable answer.
            NotStartedError: the cluster is not running, or stopped meanwhile.
            ConfigurationError: the backend has no rate limits.
        """
        limit = seconds("timeout", self._wait if timeout is None else timeout, limit=MAX_WAIT)
        contention = self._active()
        keeper = contention.around.adapter.quotas
        if keeper is None:
            backend = contention.around.adapter.capabilities.backend
            raise ConfigurationError(f"there are no rate limits on {backend}, only on Redis")
        if limit == 0 and not self._line.idle:
            raise LockTimeout(self.key, 0.0)
        try:
            async with contention.within(limit):
                await self._line.enter()
                try:
                    await self._admit(contention, keeper, waits=limit > 0)
                finally:
                    self._line.leave()
        except TimeoutError:
            raise LockTimeout(self.key, limit) from None

    async def try_acquire(self, *, timeout: Duration = 0) -> bool:
        """As `acquire`, but False when the limit is reached. By default it tries once."""
        try:
            await self.acquire(timeout=timeout)
        except LockTimeout:
            return False
        return True

    async def _admit(self, contention: Contention, keeper: QuotaKeeper, *, waits: bool) -> None:
        name = f"{contention.prefix}{self.key}"
        quota = Quota(name=name, limit=self.limit, period=self.period)
        token, pause = new_id(), _FIRST_PAUSE
        while True:
            try:
                left = await keeper.admit(quota, token, timeout=answer_timeout(self.period))
            except LockUnavailable as exc:
                if not waits:
                    raise LockUnavailable(self.key, exc.reason) from exc
                left, pause = pause, min(2 * pause, _LONGEST_PAUSE)
            if not left:
                return
            if not waits:
                raise LockTimeout(self.key, 0.0)
            await asyncio.sleep(left + contention.around.random.uniform(0.0, _SPREAD))
