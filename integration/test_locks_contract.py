from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from cluster_kit.testing.contracts.common import ProxiedEnvironment
from cluster_kit.testing.contracts.locks import Environment, Features, LockContract

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
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return ServerEnvironment(request.getfixturevalue("memcached"), b"flush_all")
