from __future__ import annotations

from typing import ClassVar

import pytest

from cluster_kit.cache.options import CacheValues
from cluster_kit.testing.contracts.cache import CacheContract, Environment, Features
from cluster_kit_memory.cache import MemoryCacheStore
from cluster_kit_memory.cache_table import TABLES
from cluster_kit_memory.options import parse_url
from tests.contracts.memory_environment import OneHub


class Private(Environment):
    """Values are kept by the cache itself; instances tell each other what they invalidate."""

    options: ClassVar[CacheValues] = {"backplane": True}

    async def url(self, index: int) -> str:
        return "memory://"


class Hub(OneHub[MemoryCacheStore], Environment):
    adapter = MemoryCacheStore

    async def put(self, key: str, body: bytes) -> None:
        [table] = [t for t in TABLES.tables() if t.name == parse_url(self.hub).hub]
        table.put(key, body, None)


class HubAlone(Hub):
    options: ClassVar[CacheValues] = {"backplane": False}


class HubAndBackplane(Hub):
    options: ClassVar[CacheValues] = {"backplane": True}


class TestMemory(CacheContract):
    features = Features(shared=False, raw=False, link_faults=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return Private()


class TestSharedMemory(CacheContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return HubAlone()


class TestSharedMemoryAndBackplane(CacheContract):
    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return HubAndBackplane()
