from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiormq
import pytest

from cluster_kit.testing.contracts.common import ProxiedEnvironment
from cluster_kit.testing.contracts.locks import Environment, Features, LockContract
from cluster_kit.testing.contracts.locks.base import KEY

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class ServerEnvironment(ProxiedEnvironment, Environment):
    """A server; each instance reaches it through a proxy of its own."""

    def __init__(self, url: str, flush: bytes) -> None:
        super().__init__(url)
        self._flush = flush

    async def drop_answers(self, cluster: Cluster) -> None:
        self.proxy(cluster).freeze("to_client")

    async def reconnect(self, cluster: Cluster) -> None:
        self.proxy(cluster).cut()
        await super().reconnect(cluster)

    async def forget(self) -> None:
        await asyncio.to_thread(say, self.server_url, self._flush)


def say(url: str, command: bytes) -> bytes:
    """Send one command of a line-based protocol and return the beginning of the answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port), 10) as link:
        link.sendall(command + b"\r\n")
        return link.recv(1024)


class TestRedisLocks(LockContract):
    features = Features(fair=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return ServerEnvironment(request.getfixturevalue("redis"), b"FLUSHALL")


class TestMemcachedLocks(LockContract):
    features = Features(
        strict_fence=False,
        fair=False,
        short_ttl=False,  # whole seconds, at least three
        rate_limits=False,
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return ServerEnvironment(request.getfixturevalue("memcached"), b"flush_all")


class AmqpEnvironment(ServerEnvironment):
    """A broker that takes an instance for dead after two seconds of silence."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url}?heartbeat=1", b"")
        self._apps: set[str] = set()

    def prepare(self, cluster: Cluster) -> None:
        self._apps.add(cluster.name)

    async def forget(self) -> None:
        connection = await aiormq.connect(self.server_url)
        channel = await connection.channel()
        for app in self._apps:
            await channel.queue_delete(f"ck.v1.lock.{app}.{KEY}")
        await connection.close()
        # A queue that is made anew while 3.10 still deletes it may come back without a leader.
        await asyncio.sleep(0.5)


class TestAmqpLocks(LockContract):
    features = Features(
        unheard=False,  # a lock lives and dies with a connection
        holder_named=False,
        rate_limits=False,
        dropped_answers=False,  # what is unanswered is undone with the connection
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return AmqpEnvironment(request.getfixturevalue("contract_vhost"))
