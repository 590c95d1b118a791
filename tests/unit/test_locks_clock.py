"""Leases by a clock that a test turns, on an adapter whose answers a test orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio

from cluster_kit.clock import BootClock, SystemClock
from cluster_kit.errors import LockLost, LockUnavailable
from cluster_kit.locks import LeaseState, LockManager
from cluster_kit.ports import Claim, Grant, Health, LockCapabilities, LockHolder
from cluster_kit.settings import LockSettings
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.waiting import eventually


class OrderedAdapter:
    """Grants everything, unless `before_answer` raises; keeps what was asked in `log`."""

    capabilities = LockCapabilities(
        backend="test",
        scope="process",
        exclusion="never",
        ttl_grain=0.0,
        least_ttl=0.0,
        fence="strict",
        wake_up="push",
        fair=False,
    )

    quotas = None

    def __init__(self) -> None:
        self.log: list[str] = []
        self.before_answer: Callable[[str], object] = lambda what: None
        self.ours = True
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
    def __init__(self, adapter: OrderedAdapter, claim: Claim) -> None:
        self._adapter = adapter
        self._claim = claim

    async def attempt(self, *, timeout: float) -> Grant | None:
        self._adapter.answer("attempt")
        self._adapter.fence += 1
        return Grant(fence=self._adapter.fence, valid_for=self._claim.ttl)

    async def changed(self) -> None:
        await asyncio.sleep(0)

    def leave(self) -> None:
        self._adapter.log.append("leave")


class Bench:
    def __init__(self) -> None:
        self.adapter = OrderedAdapter()
        self.clock = FakeClock()
        self.supervisor = Supervisor()
        self.locks = LockManager(
            "shop", "one", LockSettings(), telemetry=Telemetry(), clock=self.clock
        )
        self.locks.attach(self.adapter, self.supervisor)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.locks.close()
    assert await bench.supervisor.close() == []


@pytest.mark.asyncio
async def test_validity_ends_before_the_server_frees_the_lock(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=10)
    states: list[LeaseState] = []

    assert lease.valid_for() == pytest.approx(9)
    for seconds in (8.9, 0.2):
        await bench.clock.advance(seconds)
        states.append(lease.state)

    assert states == [LeaseState.HELD, LeaseState.LOST]


@pytest.mark.asyncio
async def test_the_wall_clock_does_not_matter(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=10)

    for jump in (-1e6, 2e6):
        bench.clock.shift_wall(jump)
        assert lease.valid_for() == pytest.approx(9)
        lease.check()


@pytest.mark.asyncio
async def test_validity_is_counted_from_before_the_request(bench: Bench) -> None:
    async def slow() -> None:
        await bench.clock.advance(3)

    contend = bench.adapter.contend

    def contend_slowly(claim: Claim) -> OrderedContender:
        contender = contend(claim)
        attempt = contender.attempt

        async def attempt_slowly(*, timeout: float) -> Grant | None:
            grant = await attempt(timeout=timeout)
            await slow()
            return grant

        contender.attempt = attempt_slowly  # type: ignore[method-assign]
        return contender

    bench.adapter.contend = contend_slowly  # type: ignore[method-assign]
    lease = await bench.locks.acquire("a", ttl=10)

    assert lease.valid_for() == pytest.approx(6)


@pytest.mark.asyncio
async def test_a_grant_that_comes_too_late_is_given_back(bench: Bench) -> None:
    def late(what: str) -> None:
        if what == "attempt":
            bench.clock._now += 10

    bench.adapter.before_answer = late
    with pytest.raises(LockUnavailable, match="when its ttl was over"):
        await bench.locks.acquire("a", ttl=10, timeout=0)

    await eventually(lambda: "release" in bench.adapter.log)


@pytest.mark.asyncio
async def test_max_hold_is_not_moved_by_an_extension(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=10, max_hold=20)

    await bench.clock.advance(5)
    await lease.extend(60)
    assert lease.valid_for() == pytest.approx(15)
    await bench.clock.advance(15)

    with pytest.raises(LockLost, match="max_hold"):
        lease.check()


@pytest.mark.asyncio
async def test_a_release_that_is_not_heard_is_repeated(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=10)
    failures = [LockUnavailable("a", "no answer"), LockUnavailable("a", "no answer")]

    def fail(what: str) -> None:
        if what == "release" and failures:
            raise failures.pop()

    bench.adapter.before_answer = fail
    await lease.release()

    await eventually(lambda: bench.adapter.log.count("release") == 3)


@pytest.mark.asyncio
async def test_a_lock_the_server_took_away_is_not_released(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=10)
    bench.adapter.ours = False

    with pytest.raises(LockLost):
        await lease.extend(10)
    await lease.release()

    assert "release" not in bench.adapter.log


@pytest.mark.asyncio
async def test_a_warning_of_the_adapter_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    assert "locks: it may forget" in caplog.messages
    await bench.locks.close()


def test_the_clock_of_leases_does_not_go_back() -> None:
    clock = BootClock()

    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert clock.monotonic() >= SystemClock().monotonic() - 1  # it counts what that one does not
