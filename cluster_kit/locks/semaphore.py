"""So many at a time: permits, each of which is a lock."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.clock import Duration
from cluster_kit.errors import LockTimeout, LockUnavailable, NotStartedError
from cluster_kit.locks.lease import Lease
from cluster_kit.locks.terms import DEFAULT_TTL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from cluster_kit.locks.contention import Contention
    from cluster_kit.locks.terms import Terms

Answer = Lease | LockTimeout | LockUnavailable | NotStartedError


class Semaphore:
    """Lets so many in at a time, among all instances. Got from `LockManager.semaphore`.

    A permit is a lock of its own, with a lease like that of any other: renewed, lost, told. Who
    waits is woken as with a lock, and is served in no particular order.
    """

    def __init__(
        self,
        key: str,
        permits: int,
        active: Callable[[], Contention],
        terms: Callable[[Duration, Duration | None], Terms],
    ) -> None:
        self.key: str = key
        self.permits: int = permits
        self._active = active
        self._terms = terms

    def __repr__(self) -> str:
        return f"Semaphore({self.key!r}, {self.permits})"

    @asynccontextmanager
    async def hold(
        self, *, ttl: Duration = DEFAULT_TTL, timeout: Duration | None = None
    ) -> AsyncGenerator[Lease]:
        """Hold a permit for a body. Raises as `LockManager.hold`."""
        async with await self.acquire(ttl=ttl, timeout=timeout) as lease:
            yield lease

    async def acquire(
        self, *, ttl: Duration = DEFAULT_TTL, timeout: Duration | None = None
    ) -> Lease:
        """Acquire a permit and return its lease, which is yours to release.

        Raises:
            LockTimeout: all permits were taken all the time.
            LockUnavailable, NotStartedError, ConfigurationError: as `LockManager.acquire`.
        """
        contention = self._active()
        waiting = self._terms(ttl, timeout)
        # No wildcard is legal in a key: permits meet no lock of a user.
        names = [f"{self.key}#{number}" for number in range(self.permits)]
        contention.around.random.shuffle(names)
        search = _Search(contention, names, self._terms(ttl, 0))
        end = contention.around.clock.monotonic() + waiting.timeout
        try:
            async with asyncio.timeout(waiting.timeout or None):
                answer = await search.one_by_one(waiting.timeout or math.inf)
        except TimeoutError:
            answer = search.in_vain(waiting.timeout)
        left = end - contention.around.clock.monotonic()
        if isinstance(answer, LockTimeout | LockUnavailable) and left > 0:
            answer = await search.all_at_once(left)
        if isinstance(answer, Lease):
            return answer
        if isinstance(answer, LockTimeout):
            why = f"all {self.permits} permits were taken"
            raise LockTimeout(self.key, waiting.timeout, why)
        if isinstance(answer, LockUnavailable):
            raise LockUnavailable(self.key, answer.reason, retryable=answer.retryable) from answer
        raise answer

    async def try_acquire(
        self, *, ttl: Duration = DEFAULT_TTL, timeout: Duration = 0
    ) -> Lease | None:
        """As `acquire`, but None when all permits are taken. By default it tries once."""
        try:
            return await self.acquire(ttl=ttl, timeout=timeout)
        except LockTimeout:
            return None


class _Search:
    """One acquisition of a permit.

    Args:
        contention: of the instance.
        names: of the permits.
        once: terms of those that are not waited for.
    """

    def __init__(self, contention: Contention, names: Sequence[str], once: Terms) -> None:
        self._contention = contention
        self._names = names
        self._once = once
        self._taken = set[str]()  # as the server said last

    async def one_by_one(self, within: float) -> Answer:
        """Ask for one after the other, until one is ours or the server does not answer.

        It ends early where all of them would take longer than `within` seconds.
        """
        clock = self._contention.around.clock
        begun = clock.monotonic()
        answer: Answer = LockTimeout(self._names[0], 0.0)
        for asked, name in enumerate(self._names, start=1):
            answer = await self._ask(name, self._once)
            each = (clock.monotonic() - begun) / asked
            if not isinstance(answer, LockTimeout) or each * len(self._names) > within:
                break
        return answer

    async def all_at_once(self, timeout: float) -> Answer:
        """Wait for all permits at once; return the first, and give back what else came."""
        spawn = self._contention.around.supervisor.spawn
        terms = self._once._replace(timeout=timeout)
        asks = [spawn(self._ask(name, terms), name=f"permit {name}") for name in self._names]
        chosen: asyncio.Task[Answer] | None = None
        try:
            pending = set(asks)
            while pending and chosen is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                chosen = next((ask for ask in done if isinstance(ask.result(), Lease)), None)
            return chosen.result() if chosen else _worst([ask.result() for ask in asks])
        finally:
            for ask in asks:
                if ask is not chosen:
                    ask.cancel()
                    ask.add_done_callback(partial(_give_back, self._contention))

    def in_vain(self, waited: float) -> LockTimeout | LockUnavailable:
        """Return why its time ended while it asked: what was heard last, of each of them."""
        if len(self._taken) == len(self._names):
            return LockTimeout(self._names[0], waited)
        return LockUnavailable(self._names[0], f"no answer within {waited:.3g} s")

    async def _ask(self, name: str, terms: Terms) -> Answer:
        attempt = self._contention.attempt(name, terms)
        attempt.one_of_many, attempt.held = True, name in self._taken
        try:
            possession = await self._contention.acquire(attempt)
        except (LockTimeout, LockUnavailable, NotStartedError) as exc:
            return exc
        finally:
            (self._taken.add if attempt.held else self._taken.discard)(name)
        return Lease(possession, self._contention.around.adapter.capabilities)


def _worst(answers: Sequence[Answer]) -> Answer:
    """Return what somebody was told who got none: all were taken, unless one is not known of."""
    return next((one for one in answers if not isinstance(one, LockTimeout)), answers[0])


def _give_back(contention: Contention, ask: asyncio.Task[Answer]) -> None:
    """Release a permit that came although nobody wants it any more."""
    if ask.cancelled() or ask.exception() is not None:
        return
    if isinstance(answer := ask.result(), Lease):
        contention.around.supervisor.spawn(answer.release(), name=f"give back {answer.key}")
