"""A lock with all defaults is held for longer than its ttl."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit.locks import LeaseState
from integration.locks_bench import running

KEY = "schema.default"
TTL = 30.0


@pytest.mark.slow
@pytest.mark.timeout(120)  # seconds; it takes a little more than the ttl
@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "memcached", "contract_vhost"])
async def test_a_lock_with_the_default_ttl_is_renewed_while_it_is_held(
    backend: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(backend)
    least = TTL
    async with running(url) as holder, running(url) as other, holder.locks.hold(KEY) as lease:
        for _ in range(int(TTL) + 2):
            await asyncio.sleep(1)
            assert lease.state is LeaseState.HELD
            told = await other.locks.inspect(KEY)
            assert told is not None
            least = min(least, TTL if told.seconds_left is None else told.seconds_left)
        assert await other.locks.try_acquire(KEY) is None
        assert lease.fence

    assert least > TTL / 3  # renewed every third of it
