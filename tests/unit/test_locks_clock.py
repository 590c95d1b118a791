"""Leases by a clock that a test turns, on an adapter whose answers a test orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from cluster_kit.clock import BootClock, SystemClock
from cluster_kit.errors import LockLost, LockUnavailable
from cluster_kit.locks import LeaseState
from cluster_kit.ports import Claim, Grant, LockCapabilities
from cluster_kit.testing.waiting import eventually
from cluster_kit_aiocache.memcached_locks import CAPABILITIES as MEMCACHED
from cluster_kit_aiocache.redis_locks import CAPABILITIES as REDIS
from cluster_kit_amqp.locks.adapter import CAPABILITIES as AMQP
from cluster_kit_memory.locks import CAPABILITIES as MEMORY
from tests.unit.locks_bench import Bench, OrderedAdapter, OrderedContender


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


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
@pytest.mark.parametrize(
    ("kept", "least"), [(MEMORY, 0.1), (REDIS, 0.1), (AMQP, 0.1), (MEMCACHED, 3.0)]
)
async def test_a_ttl_below_the_least_is_raised_to_it_on_every_backend(
    bench: Bench, kept: LockCapabilities, least: float
) -> None:
    bench.adapter.capabilities = kept

    lease = await bench.locks.acquire("a", ttl=1e-6, timeout=0)
    assert lease.valid_for() == pytest.approx(0.9 * least)
    await lease.extend(60)
    await lease.extend(1e-6)
    assert lease.valid_for() == pytest.approx(0.9 * least)


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
async def test_a_max_hold_shorter_than_an_answer_is_said_and_keeps_the_lock_from_nobody(
    bench: Bench,
) -> None:
    async def slow() -> None:
        bench.clock._now += 1

    bench.adapter.while_asked = slow
    with pytest.raises(LockUnavailable, match="when its max_hold was over"):
        await bench.locks.acquire("a", max_hold=0.5, timeout=0.3)

    asked = [what for what in bench.adapter.log if what != "leave"]
    assert len(asked) >= 4
    assert asked == ["attempt", "release"] * (len(asked) // 2)
    tokens = bench.adapter.tokens
    assert len({*tokens}) == len(tokens)  # what releases one late releases no other


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
async def test_a_shorter_ttl_is_reckoned_with_from_when_it_is_asked_for(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=60)
    meanwhile: list[float] = []
    bench.adapter.before_answer = lambda _: meanwhile.append(lease.valid_for())

    await lease.extend(10)

    assert [left for left in meanwhile if not 0 < left < 10] == []  # the loop may stand still here
    assert meanwhile
    assert lease.valid_for() == pytest.approx(9)


@pytest.mark.asyncio
@pytest.mark.parametrize("renew", [True, False])
async def test_a_shorter_ttl_that_may_be_set_is_reckoned_with(bench: Bench, renew: bool) -> None:
    lease = await bench.locks.acquire("a", ttl=60, renew=renew)
    bench.adapter.before_answer = refuse

    with pytest.raises(LockUnavailable):
        await lease.extend(10)  # and the server may free it in 10 s
    assert 0 < lease.valid_for() < 10
    await bench.clock.advance(10)

    with pytest.raises(LockLost):
        lease.check()


@pytest.mark.asyncio
@pytest.mark.parametrize(("grain", "sure"), [(0.0, 8.5), (0.001, 8.5), (1.0, 3.0)])
async def test_an_extension_without_an_answer_is_worth_what_the_server_s_clock_allows(
    bench: Bench, grain: float, sure: float
) -> None:
    bench.adapter.capabilities = replace(OrderedAdapter.capabilities, ttl_grain=grain)
    lease = await bench.locks.acquire("a", ttl=60)
    bench.adapter.before_answer = refuse

    with pytest.raises(LockUnavailable):
        await lease.extend(10)

    assert lease.valid_for() == pytest.approx(sure)


@pytest.mark.asyncio
async def test_a_shortening_that_is_cancelled_may_have_happened(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=60)
    bench.adapter.before_answer = cancel

    with pytest.raises(asyncio.CancelledError):
        await lease.extend(10)
    bench.adapter.before_answer = refuse

    assert 0 < lease.valid_for() < 10


@pytest.mark.asyncio
async def test_a_longer_ttl_that_was_not_confirmed_changes_nothing(bench: Bench) -> None:
    lease = await bench.locks.acquire("a", ttl=10)
    before = lease.valid_for()
    bench.adapter.before_answer = refuse

    with pytest.raises(LockUnavailable):
        await lease.extend(60)

    assert lease.valid_for() == before


def refuse(_: str) -> None:
    raise LockUnavailable("a", "no answer")


def cancel(_: str) -> None:
    raise asyncio.CancelledError


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
