from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from cluster_kit.cache.options import CacheValues
from cluster_kit.errors import ConfigurationError
from cluster_kit.testing.contracts.cache import CacheContract, Environment, Features
from cluster_kit.testing.contracts.cache.bench import Bench
from cluster_kit.testing.contracts.cache.pausing import Pauses
from tests.contracts.dict_store import DictStore, Rows

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


class Registered(Environment):
    """A store without an adapter, beside the one of the URL, which the caches do not use."""

    options: ClassVar[CacheValues] = {"store": "dict"}

    def __init__(self) -> None:
        self.rows: Rows = {}

    async def url(self, index: int) -> str:
        return "memory://"

    def prepare(self, cluster: Cluster) -> None:
        cluster.caches.register_store("dict", lambda _: DictStore(self.rows))

    async def put(self, key: str, body: bytes) -> None:
        self.rows[key] = body, float("inf")


class TestRegistered(CacheContract):
    features = Features(link_faults=False)

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return Registered()


class NoStore(Registered):
    def prepare(self, cluster: Cluster) -> None:
        cluster.caches.register_store("dict", lambda _: Rows())  # type: ignore[arg-type, return-value]


@pytest.mark.asyncio
async def test_a_registered_store_that_is_none_is_told_what_it_lacks() -> None:
    bench = Bench(NoStore())
    try:
        with pytest.raises(ConfigurationError, match=r"returned .* it lacks connect, "):
            await bench.cache()
    finally:
        await bench.close()


@pytest.mark.asyncio
async def test_a_pause_that_is_never_reached_fails_the_scenario() -> None:
    pauses = Pauses()
    pauses.arm(3, after=False)

    with pytest.raises(AssertionError, match=r"pause at call 3 of the store was never reached, 0 "):
        await pauses.held(timeout=0.01)
