"""What the adapters for Redis and memcached need, and what they say when it is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest
from redis.exceptions import AuthenticationError

from cluster_kit_aiocache.server import say

BLOCKED = """
import asyncio, sys
sys.modules["redis"] = None
from cluster_kit import Cluster, Settings
from cluster_kit.errors import AdapterUnavailableError, CacheUnavailable, ConnectError

AWAY = "memcached://127.0.0.1:1"

async def tried(settings, work):
    try:
        async with Cluster("shop", settings=settings) as cluster:
            await work(cluster)
    except (AdapterUnavailableError, CacheUnavailable, ConnectError) as exc:
        print(exc)

def fails(cluster):
    raise AssertionError("started")

async def main():
    await tried(Settings(cache={"url": AWAY}), lambda cluster: cluster.cache.set("key", 1))
    await tried(Settings(locks={"url": AWAY}), lambda cluster: cluster.locks.acquire("key"))
    redis = "redis://127.0.0.1:1"
    await tried(Settings(redis_url=redis), fails)
    await tried(Settings(redis_url=redis, locks={"url": "memory://"}), fails)

asyncio.run(main())
"""


def test_memcached_needs_no_driver_of_redis_and_redis_names_its_own() -> None:
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    cache, locks, *redis = done.stdout.splitlines()
    for said in (cache, locks):
        assert "cannot connect to memcached://127.0.0.1:1" in said
    assert len(redis) == 2
    for said in redis:  # at start
        assert said.startswith("redis_url (CLUSTER_KIT_REDIS_URL): adapter 'aiocache' needs")
        assert "pip install 'cluster-kit[redis]'" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AuthenticationError("HELLO must be called with the client already auth…"), "a password"),
        (AuthenticationError("Authentication required."), "a password"),
        (AuthenticationError("invalid username-password pair"), "invalid username-password pair"),
        (TimeoutError(), "no answer in time"),
        (EOFError(), "EOFError"),
    ],
)
def test_what_went_wrong_is_said_for_people(error: Exception, said: str) -> None:
    assert said in say(error)
