"""So many at a time: permits, each of which is a lock."""

from __future__ import annotations

import asyncio
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
        at_once, waiting = self._terms(ttl, 0), self._terms(ttl, timeout)
        # No wildcard is legal in a key: permits meet no lock of a user.
        names = [f"{self.key}#{number}" for number in range(self.permits)]
        contention.around.random.shuffle(names)
        end = contention.around.clock.monotonic() + waiting.timeout
        try:
            async with asyncio.timeout(waiting.timeout or None):
                answer = await _any(contention, names, at_once)
        except TimeoutError:
            answer = LockUnavailable(self.key, f"no answer within {waiting.timeout:.3g} s")
        left = end - contention.around.clock.monotonic()
        if isinstance(answer, LockTimeout | LockUnavailable) and left > 0:
            answer = await _first(contention, names, waiting._replace(timeout=left))
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


async def _ask(contention: Contention, name: str, terms: Terms) -> Answer:
    attempt = contention.attempt(name, terms)
    attempt.one_of_many = True
    try:
        possession = await contention.acquire(attempt)
    except (LockTimeout, LockUnavailable, NotStartedError) as exc:
        return exc
    return Lease(possession, contention.around.adapter.capabilities)


async def _any(contention: Contention, names: Sequence[str], terms: Terms) -> Answer:
    """Ask for one after the other, until one is ours or the server does not answer."""
    answer: Answer = LockTimeout(names[0], 0.0)
    for name in names:
        answer = await _ask(contention, name, terms)
        if not isinstance(answer, LockTimeout):
            break
    return answer


async def _first(contention: Contention, names: Sequence[str], terms: Terms) -> Answer:
    """Wait for all permits at once; return the first, and give back what else came."""
    spawn = contention.around.supervisor.spawn
    asks = [spawn(_ask(contention, name, terms), name=f"permit {name}") for name in names]
    chosen: asyncio.Task[Answer] | None = None
    try:
        pending = set(asks)
        while pending and chosen is None:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            chosen = next((ask for ask in done if isinstance(ask.result(), Lease)), None)
        return (chosen or asks[-1]).result()
    finally:
        for ask in asks:
            if ask is not chosen:
                ask.cancel()
                ask.add_done_callback(partial(_give_back, contention))


def _give_back(contention: Contention, ask: asyncio.Task[Answer]) -> None:
    """Release a permit that came although nobody wants it any more."""
    if (
        not ask.cancelled()
        and ask.exception() is None
        and isinstance(answer := ask.result(), Lease)
    ):
        contention.around.supervisor.spawn(answer.release(), name=f"give back {answer.key}")
