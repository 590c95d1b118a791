"""An instance's locks on an adapter whose answers a test orders, by a clock that a test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self

from cluster_kit.locks import LockManager
from cluster_kit.ports import Claim, Grant, Health, LockCapabilities, LockHolder, Quota
from cluster_kit.settings import LockSettings
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.clock import FakeClock


async def nothing() -> None: ...


class OrderedAdapter:
    """Grants everything that is not `taken`, unless `before_answer` raises.

    Attributes:
        log: what was asked.
        tokens: of all that was granted.
        quotas: None as long as it has no rate limits.
        while_asked: awaited by each attempt.
        while_waiting: awaited where a lock is taken, before the next attempt.
        gone: of each grant.
        ours: whether a lock can still be renewed.
        asked: whether what failed may have been sent.
    """

    capabilities = LockCapabilities(
        backend="test",
        scope="server",
        exclusion="never",
        ttl_grain=0.0,
        least_ttl=0.0,
        fence="strict",
        wake_up="push",
        fair=False,
    )

    def __init__(self) -> None:
        self.log: list[str] = []
        self.tokens: list[str] = []
        self.quotas: OrderedQuotas | None = None
        self.before_answer: Callable[[str], object] = lambda what: None
        self.while_asked: Callable[[], Awaitable[object]] = nothing
        self.while_waiting: Callable[[], Awaitable[object]] = partial(asyncio.sleep, 0)
        self.gone: asyncio.Future[str] | None = None
        self.ours = self.asked = True
        self.taken = False
        self.fence = 0

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    def warnings(self) -> Sequence[str]:
        return ("it may forget",)

    def contend(self, claim: Claim) -> OrderedContender:
        return OrderedContender(self, claim)

    async def renew(self, claim: Claim, *, timeout: float) -> float | None:
        self.answer("renew")
        return claim.ttl if self.ours else None

    async def release(self, claim: Claim, *, timeout: float) -> bool:
        self.answer("release")
        return self.ours

    async def inspect(self, name: str, *, timeout: float) -> LockHolder | None:
        return None

    def health(self) -> Health:
        return Health(status="ok", detail="", since=0.0)

    def answer(self, what: str) -> None:
        self.log.append(what)
        self.before_answer(what)


class OrderedContender:
    unsure = False  # nothing is repeated below

    def __init__(self, adapter: OrderedAdapter, claim: Claim) -> None:
        self._adapter = adapter
        self._claim = claim

    @property
    def asked(self) -> bool:
        return self._adapter.asked

    async def attempt(self, *, timeout: float) -> Grant | None:
        self._adapter.answer("attempt")
        await self._adapter.while_asked()
        if self._adapter.taken:
            return None
        self._adapter.fence += 1
        self._adapter.tokens.append(self._claim.token)
        return Grant(fence=self._adapter.fence, valid_for=self._claim.ttl, gone=self._adapter.gone)

    async def changed(self) -> None:
        await self._adapter.while_waiting()

    def leave(self) -> None:
        self._adapter.log.append("leave")


class OrderedQuotas:
    """Admits everything, as the adapter grants it."""

    def __init__(self, adapter: OrderedAdapter) -> None:
        self._adapter = adapter

    async def admit(self, quota: Quota, token: str, *, timeout: float) -> float:
        self._adapter.answer("admit")
        await self._adapter.while_asked()
        return quota.period if self._adapter.taken else 0.0


class Bench:
    """Ends what it began; a task that does not end is an error."""

    def __init__(self) -> None:
        self.adapter = OrderedAdapter()
        self.clock = FakeClock()
        self.supervisor = Supervisor()
        self.locks = LockManager(
            "shop", "one", LockSettings(), telemetry=Telemetry(), clock=self.clock
        )
        self.locks.attach(self.adapter, self.supervisor)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.locks.close()
        assert await self.supervisor.close() == []
