"""So often in a time, among all instances."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import ConfigurationError, LockTimeout, LockUnavailable
from cluster_kit.locks.asking import again
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
        self._inside = 0  # so many wait, or are about to hear that their time is over
        self._full = False  # as who waits was told, until nobody does
        self._unanswered: LockUnavailable | None = self._silence()
        self._request: asyncio.Task[float | LockUnavailable] | None = None  # for who is first

    def __repr__(self) -> str:
        return f"RateLimit({self.key!r}, {self.limit}, {self.period:g})"

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
            raise ConfigurationError(
                f"there are no rate limits on {backend}, only in memory and on Redis: "
                "see CLUSTER_KIT_LOCKS__URL"
            )
        if limit == 0:
            await self._try(contention, keeper)
            return
        self._inside += 1
        try:
            async with contention.within(limit):
                await self._in_turn(contention, keeper)
        except TimeoutError:
            unanswered = self._unanswered
            error = self._in_vain(limit) if unanswered is None else again(self.key, unanswered)
            raise error from None
        finally:
            self._inside -= 1
            if not self._inside:  # else the next one finds out, before those who come later
                self._forget()

    async def try_acquire(self, *, timeout: Duration = 0) -> bool:
        """As `acquire`, but False when the limit is reached. By default it tries once."""
        try:
            await self.acquire(timeout=timeout)
        except LockTimeout:
            return False
        return True

    def _silence(self) -> LockUnavailable:
        return LockUnavailable(self.key, "no answer in time")

    def _forget(self) -> None:
        self._full, self._unanswered, self._request = False, self._silence(), None

    def _in_vain(self, waited: float) -> LockTimeout:
        why = f"the limit of {self.limit} in {self.period:g} s was reached"
        return LockTimeout(self.key, waited, why)

    def _quota(self, contention: Contention) -> Quota:
        name = contention.around.name_of(self.key)
        return Quota(name=name, limit=self.limit, period=self.period)

    async def _try(self, contention: Contention, keeper: QuotaKeeper) -> None:
        """Ask once. Who waits was here before, so nobody is let in while somebody has to."""
        left = 1.0
        if not self._full:
            left = await self._ask(contention, keeper, new_id())
        if left:
            raise self._in_vain(0.0)

    async def _in_turn(self, contention: Contention, keeper: QuotaKeeper) -> None:
        await self._line.enter()
        try:
            await self._wait_for(contention, keeper)
        finally:
            self._line.leave()

    async def _wait_for(self, contention: Contention, keeper: QuotaKeeper) -> None:
        token, pause = new_id(), _FIRST_PAUSE
        while True:
            try:
                left = await self._first(contention, keeper, token)
            except LockUnavailable as exc:
                if not exc.retryable:
                    raise
                self._unanswered = exc
                left, pause = pause, min(2 * pause, _LONGEST_PAUSE)
            else:
                self._full, self._unanswered = self._full or left > 0, None
            if not left:
                return
            await asyncio.sleep(left + contention.around.random.uniform(0.0, _SPREAD))

    async def _first(self, contention: Contention, keeper: QuotaKeeper, token: str) -> float:
        """Ask for whoever is first in line: who leaves has asked for the next one.

        None of these requests is broken off, which would cost its connection.
        """
        if self._request is None:
            name = f"ask for {self.key}"
            asking = self._answer(contention, keeper, token)
            self._request = contention.around.supervisor.spawn(asking, name=name)
        request = self._request
        await asyncio.wait({request})
        self._request = None
        answer = self._silence() if request.cancelled() else request.result()
        if isinstance(answer, LockUnavailable):
            raise answer
        return answer

    async def _answer(
        self, contention: Contention, keeper: QuotaKeeper, token: str
    ) -> float | LockUnavailable:
        try:
            return await self._ask(contention, keeper, token)
        except LockUnavailable as exc:
            return exc

    async def _ask(self, contention: Contention, keeper: QuotaKeeper, token: str) -> float:
        quota = self._quota(contention)
        try:
            return await keeper.admit(quota, token, timeout=answer_timeout(self.period))
        except LockUnavailable as exc:
            raise contention.around.told(self.key, exc) from exc
