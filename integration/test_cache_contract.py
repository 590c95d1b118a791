from __future__ import annotations

import asyncio
import socket
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from cluster_kit.cache.options import CacheValues
from cluster_kit.testing.contracts.cache import CacheContract, Environment, Features
from cluster_kit.testing.contracts.common import ProxiedEnvironment
from cluster_kit.testing.servers import RabbitServer


@pytest.fixture(scope="module")
def virtual_host(rabbitmq_server: RabbitServer) -> str:
    # One for all scenarios: they keep apart by the names of their applications.
    return rabbitmq_server.new_url()


def say(url: str, request: bytes) -> None:
    """Send one request of a line-based protocol and wait for the answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port), 10) as link:
        link.sendall(request)
        assert link.recv(1024)


class RedisEnvironment(ProxiedEnvironment, Environment):
    """Each instance reaches the server through a proxy of its own."""

    async def put(self, key: str, body: bytes) -> None:
        words = (b"SET", key.encode(), body)
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        request = b"*%d\r\n" % len(words) + b"".join(parts)
        await asyncio.to_thread(say, self.server_url, request)


class MemcachedEnvironment(ProxiedEnvironment, Environment):
    async def put(self, key: str, body: bytes) -> None:
        request = b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), len(body), body)
        await asyncio.to_thread(say, self.server_url, request)


class WithBackplane(RedisEnvironment):
    options: ClassVar[CacheValues] = {"backplane": True}

    def __init__(self, url: str, broker: str) -> None:
        super().__init__(url)
        self._broker = broker

    def pubsub_url(self) -> str:
        return self._broker


class OnlyBackplane(Environment):
    """No server for values: each instance keeps its own, and tells what it invalidates."""

    options: ClassVar[CacheValues] = {"backplane": True}

    def __init__(self, broker: str) -> None:
        self._broker = broker

    async def url(self, index: int) -> str:
        return "memory://"

    def pubsub_url(self) -> str:
        return self._broker


class TestRedis(CacheContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return RedisEnvironment(request.getfixturevalue("redis"))


class TestMemcached(CacheContract):
    features = Features(lists_keys=False, short_ttl=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemcachedEnvironment(request.getfixturevalue("memcached"))


@pytest.mark.broker
class TestBackplaneAlone(CacheContract):
    features = Features(shared=False, raw=False, link_faults=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return OnlyBackplane(request.getfixturevalue("virtual_host"))


@pytest.mark.broker
class TestRedisAndBackplane(CacheContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        urls = [request.getfixturevalue(name) for name in ("redis", "virtual_host")]
        return WithBackplane(*urls)
